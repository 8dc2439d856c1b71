#pragma once

#include <attend/export.h>
#include <attend/nn/transformer.h>
#include <torch/nn/modules/embedding.h>

#include <string>

namespace attend::models {

/// Options for `Bert`, with the names and defaults of a BERT's config.json.
struct ATTEND_API BertOptions {
  /// How many tokens there are.
  TORCH_ARG(int64_t, vocab_size) = 30522;
  /// The width of a token.
  TORCH_ARG(int64_t, hidden_size) = 768;
  TORCH_ARG(int64_t, num_hidden_layers) = 12;
  TORCH_ARG(int64_t, num_attention_heads) = 12;
  /// The width within the feed-forward parts.
  TORCH_ARG(int64_t, intermediate_size) = 3072;
  /// The longest input.
  TORCH_ARG(int64_t, max_position_embeddings) = 512;
  /// How many kinds of tokens there are, as of a first and a second text.
  TORCH_ARG(int64_t, type_vocab_size) = 2;
  TORCH_ARG(double, layer_norm_eps) = 1e-12;
  /// The probability of dropout while training.
  TORCH_ARG(double, dropout) = 0.1;
  /// The token of padding, whose embedding gets no gradient.
  TORCH_ARG(int64_t, pad_token_id) = 0;
  /// Whether there is a pooler.
  TORCH_ARG(bool, pooler) = true;
};

/// What a call of `Bert` may say beside the tokens.
struct BertInputs {
  /// [B, L], boolean or int64: true or 1 for tokens, false or 0 for padding. Default: all are tokens.
  torch::Tensor attention_mask = {};
  /// int64 [B, L]: of which text each token is. Default: 0.
  torch::Tensor token_type_ids = {};
};

/// The encoder of BERT (Devlin 2018): the sum of the embeddings of token, position and kind, normed, through
/// the layers of a `nn::TransformerEncoder` with GELU. Parameters: word_embeddings.weight [V, E],
/// position_embeddings.weight, token_type_embeddings.weight, norm.*, encoder.layers.N.*, pooler.*;
/// `load_bert` reads those of the files that BERTs are published as.
class ATTEND_API BertImpl : public torch::nn::Cloneable<BertImpl> {
 public:
  explicit BertImpl(const BertOptions& options = {});

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// ids, int64 [B, L], each below vocab_size -> [B, L, hidden_size].
  torch::Tensor forward(const torch::Tensor& ids, const BertInputs& inputs = {});

  /// What each layer's heads attend to on the way: [layers, B, H, L, L].
  torch::Tensor attention_weights(const torch::Tensor& ids, const BertInputs& inputs = {});

  /// tanh(pooler(the first token)) of what forward returned: [B, hidden_size].
  torch::Tensor pooled(const torch::Tensor& hidden);

  BertOptions options;
  torch::nn::Embedding word_embeddings{nullptr}, position_embeddings{nullptr}, token_type_embeddings{nullptr};
  nn::Norm norm{nullptr};
  nn::TransformerEncoder encoder{nullptr};
  torch::nn::Linear pooler{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(BertInputs())})

 private:
  torch::Tensor embed(const torch::Tensor& ids, const BertInputs& inputs);
};

/// Holder of `BertImpl`.
class Bert : public torch::nn::ModuleHolder<BertImpl> {
 public:
  using torch::nn::ModuleHolder<BertImpl>::ModuleHolder;
  using Impl = BertImpl;

  torch::Tensor operator()(const torch::Tensor& ids, const BertInputs& inputs = {}) {
    return get()->forward(ids, inputs);
  }
};

/// The BERT of a folder with `config.json` and `model.safetensors`, as published for Python's `transformers`;
/// in evaluation mode. Errors (c10::Error): files that can't be read, an activation or positions that `Bert`
/// lacks, and parameters that are missing or of other shapes.
ATTEND_API Bert load_bert(const std::string& folder);

/// How a text's vector is made of its tokens'.
enum class Pooling {
  first,  ///< the first token's, [CLS]
  mean,
  max,
};

/// [B, L, E] -> [B, E], over the tokens that the attention mask, [B, L], has.
ATTEND_API torch::Tensor pool(const torch::Tensor& hidden, const torch::Tensor& attention_mask,
                              Pooling pooling);

}  // namespace attend::models
