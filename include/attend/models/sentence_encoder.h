#pragma once

#include <attend/export.h>
#include <attend/models/bert.h>
#include <attend/models/word_piece.h>

#include <functional>
#include <string>
#include <vector>

namespace attend::models {

/// Options for `SentenceEncoder`.
struct SentenceEncoderOptions {
  /// The maximum length of a text in tokens, with [CLS] and [SEP]; a longer text is truncated.
  TORCH_ARG(int64_t, max_length) = 256;
  /// How the hidden states of a text's tokens become one vector.
  TORCH_ARG(Pooling, pooling) = Pooling::mean;
  /// Whether vectors are scaled to length 1, so that their dot product is the cosine similarity.
  TORCH_ARG(bool, normalize) = true;
  /// The maximum number of tokens in a batch, with padding. Small batches stay in a CPU's caches.
  TORCH_ARG(int64_t, max_batch_tokens) = 1024;
};

/// Maps texts to vectors that are close to each other if the texts are similar in meaning (Sentence-BERT,
/// Reimers 2019).
class ATTEND_API SentenceEncoder {
 public:
  /// Loads an encoder from a folder in the layout of Python's `sentence_transformers`: vocab.txt, and the
  /// files that `load_bert` reads. The optional files sentence_bert_config.json, modules.json and
  /// 1_Pooling/config.json set the options.
  ///
  /// Errors (c10::Error): a file that cannot be read, and one that configures another kind of model.
  static SentenceEncoder load(const std::string& folder);

  /// Errors (c10::Error): a `max_length` below 2 or above the model's maximum, and a vocabulary larger than
  /// the model's.
  SentenceEncoder(WordPiece tokenizer, Bert bert, const SentenceEncoderOptions& options = {});

  /// Encodes texts, in UTF-8: one row of [N, hidden_size] per text. Texts are batched by length, so that
  /// there is little padding. `progress` is called after each batch with the number of texts that are
  /// encoded. No gradients are recorded.
  torch::Tensor encode(const std::vector<std::string>& texts,
                       const std::function<void(size_t done)>& progress = {});

  /// The tokenizer.
  const WordPiece& tokenizer() const { return tokenizer_; }
  /// The model.
  Bert& bert() { return bert_; }
  /// The options.
  const SentenceEncoderOptions& options() const { return options_; }

 private:
  torch::Tensor encode_batch(const std::vector<const Encoding*>& batch);

  WordPiece tokenizer_;
  Bert bert_;
  SentenceEncoderOptions options_;
};

}  // namespace attend::models
