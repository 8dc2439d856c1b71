#pragma once

#include <attend/export.h>
#include <attend/models/bert.h>
#include <attend/models/word_piece.h>

#include <functional>
#include <string>
#include <vector>

namespace attend::models {

struct SentenceEncoderOptions {
  int64_t max_length = 256;         ///< in tokens; what is longer is cut
  Pooling pooling = Pooling::mean;  ///< how a text's vector is made of its tokens'
  bool normalize = true;            ///< to length 1, so that a product of two is their cosine
  int64_t tokens_at_once = 1024;    ///< of a batch, padding included; with few they stay in a CPU's caches
};

/// Texts to vectors that are near to one another where the meanings are (Reimers 2019).
class ATTEND_API SentenceEncoder {
 public:
  /// The encoder of a folder that is laid out as for Python's `sentence_transformers`: vocab.txt, and what
  /// `load_bert` reads; sentence_bert_config.json, modules.json and 1_Pooling/config.json, where they are,
  /// set the options. Errors (c10::Error): files that can't be read, or are for another kind of model.
  static SentenceEncoder load(const std::string& folder);
  SentenceEncoder(WordPiece tokenizer, Bert bert, const SentenceEncoderOptions& options = {});

  /// [N, hidden_size], a row for each text. Texts of like lengths are read together, so that there is little
  /// padding; `progress` is told how many are done. No gradients are recorded.
  torch::Tensor encode(const std::vector<std::string>& texts,
                       const std::function<void(size_t done)>& progress = {});

  const WordPiece& tokenizer() const { return tokenizer_; }
  Bert& bert() { return bert_; }
  const SentenceEncoderOptions& options() const { return options_; }

 private:
  torch::Tensor encode_batch(const std::vector<const Encoding*>& batch);

  WordPiece tokenizer_;
  Bert bert_;
  SentenceEncoderOptions options_;
};

}  // namespace attend::models
