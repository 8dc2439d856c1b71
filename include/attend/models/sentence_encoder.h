#pragma once

#include <attend/export.h>
#include <attend/models/bert.h>
#include <attend/models/word_piece.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace attend::models {

/// Texts by name.
using Prompts = std::map<std::string, std::string>;

/// Options for `SentenceEncoder`.
struct SentenceEncoderOptions {
  /// The maximum length of a text in tokens, with [CLS] and [SEP]; a longer text is truncated. Default: the
  /// smaller of the model's max_position_embeddings and the tokenizer's model_max_length.
  TORCH_ARG(std::optional<int64_t>, max_length) = std::nullopt;
  /// How the hidden states of the tokens of a text are combined into one vector.
  TORCH_ARG(Pooling, pooling) = Pooling::mean;
  /// Whether vectors are scaled to length 1, so that their dot product is the cosine similarity.
  TORCH_ARG(bool, normalize) = true;
  /// The maximum number of tokens in a batch, with padding. Small batches stay in a CPU's caches.
  TORCH_ARG(int64_t, max_batch_tokens) = 1024;
  /// Texts by name that `encode` puts before each text on request, such as "query: ".
  TORCH_ARG(Prompts, prompts) = {};
  /// The name of the prompt that `encode` uses if none is requested; empty means no prompt.
  TORCH_ARG(std::string, default_prompt_name) = "";
  /// Whether texts are lower-cased (as by Python's `str.lower`) before the tokenizer reads them.
  TORCH_ARG(bool, do_lower_case) = false;
};

/// Maps texts to vectors that are close to each other if the texts are similar in meaning (Sentence-BERT,
/// Reimers 2019).
class ATTEND_API SentenceEncoder {
 public:
  /// Loads an encoder from a folder in the layout of Python's `sentence_transformers`: the files that
  /// `load_word_piece` and `load_bert` read. The optional file modules.json lists the modules Transformer,
  /// Pooling and Normalize with their folders; sentence_bert_config.json, the config.json of the pooling and
  /// config_sentence_transformers.json set the options.
  ///
  /// Errors (c10::Error): a file that cannot be read, and a file that configures another kind of model; the
  /// message names the field.
  static SentenceEncoder load(const std::string& folder);

  /// Errors (c10::Error): a `max_length` below 2 or above the model's maximum, a vocabulary larger than the
  /// model's, and a default prompt that is not among the prompts.
  SentenceEncoder(WordPiece tokenizer, Bert bert, const SentenceEncoderOptions& options = {});

  /// Encodes texts, in UTF-8: one row of [N, hidden_size] per text. Texts are batched by length, so that
  /// there is little padding. `progress` is called after each batch with the number of texts encoded so far.
  /// `prompt_name` is the name of the prompt that is put before each text; empty means the default prompt. No
  /// gradients are recorded.
  ///
  /// Errors (c10::Error): a name that is not among the prompts.
  torch::Tensor encode(const std::vector<std::string>& texts,
                       const std::function<void(size_t done)>& progress = {},
                       const std::string& prompt_name = {});

  /// The tokenizer.
  const WordPiece& tokenizer() const { return tokenizer_; }
  /// The model.
  Bert& bert() { return bert_; }
  /// The options; `max_length` always has a value.
  const SentenceEncoderOptions& options() const { return options_; }
  /// The maximum length of a text in tokens, with [CLS] and [SEP].
  int64_t max_length() const { return options_.max_length().value(); }

 private:
  Encoding tokens_of(const std::string& prompt, const std::string& text) const;
  torch::Tensor encode_batch(const std::vector<const Encoding*>& batch);

  WordPiece tokenizer_;
  Bert bert_;
  SentenceEncoderOptions options_;
};

}  // namespace attend::models
