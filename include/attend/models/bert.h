#pragma once

#include <attend/export.h>
#include <attend/nn/transformer.h>
#include <torch/nn/modules/embedding.h>

#include <optional>
#include <string>

namespace attend::models {

/// Options for `Bert`, with the names and defaults of its config.json.
struct ATTEND_API BertOptions {
  /// The number of tokens in the vocabulary.
  TORCH_ARG(int64_t, vocab_size) = 30522;
  /// The width of the embeddings and layers.
  TORCH_ARG(int64_t, hidden_size) = 768;
  /// The number of encoder layers.
  TORCH_ARG(int64_t, num_hidden_layers) = 12;
  /// The number of attention heads per layer.
  TORCH_ARG(int64_t, num_attention_heads) = 12;
  /// The inner width of the feed-forward networks.
  TORCH_ARG(int64_t, intermediate_size) = 3072;
  /// The maximum length of an input.
  TORCH_ARG(int64_t, max_position_embeddings) = 512;
  /// The number of token types; two, if an input can consist of two texts.
  TORCH_ARG(int64_t, type_vocab_size) = 2;
  /// The epsilon of the layer norms.
  TORCH_ARG(double, layer_norm_eps) = 1e-12;
  /// The dropout probability in training.
  TORCH_ARG(double, dropout) = 0.1;
  /// The id of the padding token, whose embedding gets no gradient; if none, every embedding gets a gradient.
  TORCH_ARG(std::optional<int64_t>, pad_token_id) = 0;
  /// Whether the model has a pooler.
  TORCH_ARG(bool, pooler) = true;
};

/// Optional inputs of a call of `Bert`.
struct BertParams {
  /// [B, L], boolean or int64: true or 1 for tokens, false or 0 for padding. Default: no padding.
  torch::Tensor attention_mask = {};
  /// int64 [B, L]: the text to which each token belongs, 0 or 1. Default: 0.
  torch::Tensor token_type_ids = {};
};

/// The encoder of BERT (Devlin 2018): the sum of token, position and token type embeddings, a layer norm, and
/// a `nn::TransformerEncoder` with GELU.
///
/// Parameters: word_embeddings.weight [vocab_size, hidden_size], position_embeddings.weight,
/// token_type_embeddings.weight, norm.*, encoder.layers.N.*, pooler.*. `load_bert` reads published
/// checkpoints.
class ATTEND_API BertImpl : public torch::nn::Cloneable<BertImpl> {
 public:
  explicit BertImpl(const BertOptions& options = {});

  /// Creates and registers the submodules.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;

  /// Returns the hidden states of the last layer, [B, L, hidden_size]. `ids` is int64 [B, L], each in [0,
  /// vocab_size).
  ///
  /// Errors (c10::Error): tensors of another shape or dtype, L above max_position_embeddings, and (on the
  /// CPU) an id out of range.
  torch::Tensor forward(const torch::Tensor& ids, const BertParams& params = {});

  /// Returns the attention weights of all layers and heads: [layers, B, H, L, L].
  torch::Tensor attention_weights(const torch::Tensor& ids, const BertParams& params = {});

  /// Returns tanh(pooler(h)) for the hidden state h of the first token, [B, hidden_size]. `hidden` is the
  /// result of `forward`.
  ///
  /// Errors (c10::Error): a model without a pooler.
  torch::Tensor pooled(const torch::Tensor& hidden);

  BertOptions options;                                  ///< the options; the layers have copies of theirs
  torch::nn::Embedding word_embeddings{nullptr};        ///< the embeddings of tokens
  torch::nn::Embedding position_embeddings{nullptr};    ///< the learned embeddings of positions
  torch::nn::Embedding token_type_embeddings{nullptr};  ///< the embeddings of token types
  nn::Norm norm{nullptr};                               ///< the norm of the sum of the embeddings
  nn::TransformerEncoder encoder{nullptr};              ///< the stack of encoder layers
  /// The layer of `pooled`; null in a model without pooler.
  torch::nn::Linear pooler{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(BertParams())})

 private:
  torch::Tensor embed(const torch::Tensor& ids, const BertParams& params);
};

/// A module holder of `BertImpl`.
class Bert : public torch::nn::ModuleHolder<BertImpl> {
 public:
  using torch::nn::ModuleHolder<BertImpl>::ModuleHolder;
  using Impl = BertImpl;  ///< the module

  /// Calls `BertImpl::forward`.
  torch::Tensor operator()(const torch::Tensor& ids, const BertParams& params = {}) {
    return get()->forward(ids, params);
  }
};

/// Loads a BERT, in evaluation mode, from a folder with config.json and weights (see `load_weights`) as
/// published for Python's `transformers`.
///
/// Errors (c10::Error): a file that cannot be read, a configuration with another model type, activation or
/// kind of position embedding, a decoder, and parameters that are missing or of other shapes.
ATTEND_API Bert load_bert(const std::string& folder);

/// How the hidden states of the tokens of a text are combined into one vector.
enum class Pooling {
  cls,   ///< the hidden state of the first token, [CLS]
  mean,  ///< the mean over the tokens
  max,   ///< the maximum over the tokens, per element
};

/// Pools hidden states over the tokens of each text: [B, L, E] -> [B, E]. `attention_mask`, [B, L], is
/// nonzero for tokens and zero for padding.
///
/// Errors (c10::Error): shapes that do not match.
ATTEND_API torch::Tensor pool(const torch::Tensor& hidden, const torch::Tensor& attention_mask,
                              Pooling pooling);

}  // namespace attend::models
