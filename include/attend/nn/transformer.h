#pragma once

#include <attend/export.h>
#include <attend/nn/mixer.h>
#include <attend/nn/multi_head_attention.h>
#include <attend/transformer_cache.h>
#include <torch/nn/modules/container/modulelist.h>

#include <vector>

namespace attend::nn {

/// The nonlinearity of the feed-forward part.
enum class Activation {
  relu,
  gelu,    ///< exact, by the error function
  swiglu,  ///< silu(linear_gate(x)) * linear1(x) (Shazeer 2020), with one more linear layer, linear_gate
};

enum class NormKind {
  layer_norm,
  rms_norm,  ///< x / sqrt(mean(x^2) + eps) * weight (Zhang 2019)
};

/// Options for a layer of an encoder or a decoder, with the defaults of torch.nn.TransformerEncoderLayer but
/// for batch_first.
struct ATTEND_API TransformerLayerOptions {
  TransformerLayerOptions(int64_t d_model, int64_t nhead)
      : d_model_(d_model), nhead_(nhead), attention_(d_model, nhead) {}
  /// The width of the inputs and of the result.
  TORCH_ARG(int64_t, d_model);
  /// The number of heads.
  TORCH_ARG(int64_t, nhead);
  /// The width within the feed-forward part. Default: 2048.
  TORCH_ARG(int64_t, dim_feedforward) = 2048;
  /// The probability of dropout, of weights and of results. Default: 0.1.
  TORCH_ARG(double, dropout) = 0.1;
  /// Default: relu.
  TORCH_ARG(Activation, activation) = Activation::relu;
  /// Default: layer_norm.
  TORCH_ARG(NormKind, norm) = NormKind::layer_norm;
  /// Added to the variance in the norms. Default: 1e-5.
  TORCH_ARG(double, layer_norm_eps) = 1e-5;
  /// Whether inputs are [B, L, d_model], or [L, B, d_model]. Default: true.
  TORCH_ARG(bool, batch_first) = true;
  /// Whether each part is preceded by its norm, x + part(norm(x)), or followed, norm(x + part(x)). Default:
  /// false.
  TORCH_ARG(bool, norm_first) = false;
  /// Whether linear layers and layer norms add a learned bias. Default: true.
  TORCH_ARG(bool, bias) = true;
  /// Further options of the self-attention (grouped heads, rotary, windows, ...); d_model, nhead, dropout and
  /// bias above take the place of its own.
  TORCH_ARG(MultiHeadAttentionOptions, attention);
  /// What stands in the place of the self-attention in a layer of an encoder: see `as_mixer`. Default:
  /// nothing does.
  TORCH_ARG(MixerFactory, mixer);
};

/// Layer norm or RMS norm over the last dimension. Parameters: weight [width], and for the layer norm with a
/// bias, bias [width].
class ATTEND_API NormImpl : public torch::nn::Cloneable<NormImpl> {
 public:
  /// The norm of a layer with such options.
  explicit NormImpl(const TransformerLayerOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor weight, bias;

 private:
  int64_t width_;
  NormKind kind_;
  double eps_;
  bool has_bias_;
};

TORCH_MODULE(Norm);

/// A layer of an encoder (Vaswani 2017, section 3.1): self-attention and a feed-forward part, each with
/// dropout, a residual and a norm. With `attention().is_causal(true)` it is a layer of a decoder-only
/// language model, and so it is with a `mixer`.
///
/// Parameters bear the names of torch.nn.TransformerEncoderLayer: self_attn.* (with a mixer instead mixer.*),
/// linear1.*, linear2.*, norm1.*, norm2.*; with SwiGLU also linear_gate.*.
class ATTEND_API TransformerEncoderLayerImpl : public torch::nn::Cloneable<TransformerEncoderLayerImpl> {
 public:
  TransformerEncoderLayerImpl(int64_t d_model, int64_t nhead)
      : TransformerEncoderLayerImpl(TransformerLayerOptions(d_model, nhead)) {}
  explicit TransformerEncoderLayerImpl(const TransformerLayerOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// src [B, L, d_model], or without B -> the same shape. `inputs`: masks and cache, as for
  /// `MultiHeadAttention`; attn_mask is what PyTorch calls src_mask. A mixer is causal by itself and takes
  /// none of them; with `state` it goes on from there.
  torch::Tensor forward(const torch::Tensor& src, const MultiHeadAttentionInputs& inputs = {},
                        RecurrentState* state = nullptr);

  TransformerLayerOptions options;
  MultiHeadAttention self_attn{nullptr};  ///< empty where there is a mixer
  torch::nn::AnyModule mixer;
  torch::nn::Linear linear1{nullptr}, linear2{nullptr}, linear_gate{nullptr};
  Norm norm1{nullptr}, norm2{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(MultiHeadAttentionInputs())},
                           {2, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};

/// Holder of `TransformerEncoderLayerImpl`.
class TransformerEncoderLayer : public torch::nn::ModuleHolder<TransformerEncoderLayerImpl> {
 public:
  using torch::nn::ModuleHolder<TransformerEncoderLayerImpl>::ModuleHolder;
  using Impl = TransformerEncoderLayerImpl;

  torch::Tensor operator()(const torch::Tensor& src, const MultiHeadAttentionInputs& inputs = {},
                           RecurrentState* state = nullptr) {
    return get()->forward(src, inputs, state);
  }
};

/// A layer of a decoder (Vaswani 2017, section 3.1): self-attention, attention to the memory (an encoder's
/// result), and a feed-forward part.
///
/// Parameters bear the names of torch.nn.TransformerDecoderLayer: self_attn.*, multihead_attn.*, linear1.*,
/// linear2.*, norm1.*, norm2.*, norm3.*; with SwiGLU also linear_gate.*.
class ATTEND_API TransformerDecoderLayerImpl : public torch::nn::Cloneable<TransformerDecoderLayerImpl> {
 public:
  TransformerDecoderLayerImpl(int64_t d_model, int64_t nhead)
      : TransformerDecoderLayerImpl(TransformerLayerOptions(d_model, nhead)) {}
  explicit TransformerDecoderLayerImpl(const TransformerLayerOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// tgt [B, L, d_model], memory [B, S, d_model], or both without B -> the shape of tgt. `self` and `cross`:
  /// masks and caches of either attention. As in PyTorch nothing is hidden from a query unless a mask or the
  /// options say so.
  torch::Tensor forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                        const MultiHeadAttentionInputs& self = {},
                        const MultiHeadAttentionInputs& cross = {});

  TransformerLayerOptions options;
  MultiHeadAttention self_attn{nullptr}, multihead_attn{nullptr};
  torch::nn::Linear linear1{nullptr}, linear2{nullptr}, linear_gate{nullptr};
  Norm norm1{nullptr}, norm2{nullptr}, norm3{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({2, torch::nn::AnyValue(MultiHeadAttentionInputs())},
                           {3, torch::nn::AnyValue(MultiHeadAttentionInputs())})
};

/// Holder of `TransformerDecoderLayerImpl`.
class TransformerDecoderLayer : public torch::nn::ModuleHolder<TransformerDecoderLayerImpl> {
 public:
  using torch::nn::ModuleHolder<TransformerDecoderLayerImpl>::ModuleHolder;
  using Impl = TransformerDecoderLayerImpl;

  torch::Tensor operator()(const torch::Tensor& tgt, const torch::Tensor& memory,
                           const MultiHeadAttentionInputs& self = {},
                           const MultiHeadAttentionInputs& cross = {}) {
    return get()->forward(tgt, memory, self, cross);
  }
};

/// Options for a stack of layers.
struct ATTEND_API TransformerStackOptions {
  TransformerStackOptions(const TransformerLayerOptions& layer, int64_t num_layers)
      : layer_(layer), num_layers_(num_layers) {}
  TORCH_ARG(TransformerLayerOptions, layer);
  TORCH_ARG(int64_t, num_layers);
  /// The mixers of an encoder's layers, in turn, an empty one for softmax attention: with {delta, delta,
  /// delta, nullptr} every fourth layer attends. At most as many as there are layers; fewer repeat. Default:
  /// all layers have that of `layer`.
  TORCH_ARG(std::vector<MixerFactory>, mixers);
  /// Whether a norm follows the last layer. Default: false.
  TORCH_ARG(bool, final_norm) = false;
  /// Activation checkpointing (Chen 2016): a layer keeps its inputs alone, and is computed again when its
  /// gradient is asked for, with the same dropout. Default: false.
  TORCH_ARG(bool, checkpointing) = false;
};

/// A stack of encoder layers. Names: layers.N.*, and norm.* where there is a final norm.
class ATTEND_API TransformerEncoderImpl : public torch::nn::Cloneable<TransformerEncoderImpl> {
 public:
  explicit TransformerEncoderImpl(const TransformerStackOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// src [B, L, d_model], or without B -> the same shape. `inputs` serve every layer; a cache is given as
  /// `cache`, never in `inputs`. Where layers have mixers there are no masks and no `counts`: that softmax
  /// attention is causal is an option of it.
  torch::Tensor forward(const torch::Tensor& src, const MultiHeadAttentionInputs& inputs = {},
                        TransformerCache* cache = nullptr);

  /// For decoding with a causal encoder: a cache for up to `capacity` tokens of `batch` sequences. Layers
  /// with a mixer take any number of tokens, and as many sequences as their first part has.
  TransformerCache make_cache(int64_t batch, int64_t capacity) const;

  TransformerStackOptions options;
  torch::nn::ModuleList layers{nullptr};
  Norm norm{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(MultiHeadAttentionInputs())},
                           {2, torch::nn::AnyValue(static_cast<TransformerCache*>(nullptr))})
};

/// Holder of `TransformerEncoderImpl`.
class TransformerEncoder : public torch::nn::ModuleHolder<TransformerEncoderImpl> {
 public:
  using torch::nn::ModuleHolder<TransformerEncoderImpl>::ModuleHolder;
  using Impl = TransformerEncoderImpl;

  torch::Tensor operator()(const torch::Tensor& src, const MultiHeadAttentionInputs& inputs = {},
                           TransformerCache* cache = nullptr) {
    return get()->forward(src, inputs, cache);
  }
};

/// A stack of decoder layers. Names: layers.N.*, and norm.* where there is a final norm.
class ATTEND_API TransformerDecoderImpl : public torch::nn::Cloneable<TransformerDecoderImpl> {
 public:
  explicit TransformerDecoderImpl(const TransformerStackOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// As a layer, with inputs that serve every layer. With a cache, which holds the memory, `memory` is left
  /// undefined, tgt are the next tokens, and they see all that came before.
  torch::Tensor forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                        const MultiHeadAttentionInputs& self = {}, const MultiHeadAttentionInputs& cross = {},
                        TransformerCache* cache = nullptr);

  /// A cache for up to `capacity` tokens that attend to this memory, which is projected here, once; without
  /// gradients (torch::NoGradGuard), as none flow through a cache.
  TransformerCache make_cache(const torch::Tensor& memory, int64_t capacity,
                              const torch::Tensor& memory_key_padding_mask = {});

  TransformerStackOptions options;
  torch::nn::ModuleList layers{nullptr};
  Norm norm{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({2, torch::nn::AnyValue(MultiHeadAttentionInputs())},
                           {3, torch::nn::AnyValue(MultiHeadAttentionInputs())},
                           {4, torch::nn::AnyValue(static_cast<TransformerCache*>(nullptr))})
};

/// Holder of `TransformerDecoderImpl`.
class TransformerDecoder : public torch::nn::ModuleHolder<TransformerDecoderImpl> {
 public:
  using torch::nn::ModuleHolder<TransformerDecoderImpl>::ModuleHolder;
  using Impl = TransformerDecoderImpl;

  torch::Tensor operator()(const torch::Tensor& tgt, const torch::Tensor& memory,
                           const MultiHeadAttentionInputs& self = {},
                           const MultiHeadAttentionInputs& cross = {}, TransformerCache* cache = nullptr) {
    return get()->forward(tgt, memory, self, cross, cache);
  }
};

/// Options for `Transformer`, with the defaults of torch.nn.Transformer but for batch_first.
struct ATTEND_API TransformerOptions {
  explicit TransformerOptions(int64_t d_model = 512, int64_t nhead = 8) : layer_(d_model, nhead) {}
  /// Of every layer of the encoder and the decoder.
  TORCH_ARG(TransformerLayerOptions, layer);
  /// Default: 6.
  TORCH_ARG(int64_t, num_encoder_layers) = 6;
  /// Default: 6.
  TORCH_ARG(int64_t, num_decoder_layers) = 6;
  /// As in `TransformerStackOptions`. Default: false.
  TORCH_ARG(bool, checkpointing) = false;
};

/// The masks of `Transformer`, with the names and meanings of torch.nn.Transformer: boolean, true = must not
/// attend (ignore), or floating, added to the scores.
struct TransformerMasks {
  torch::Tensor src_mask = {}, tgt_mask = {}, memory_mask = {};
  torch::Tensor src_key_padding_mask = {}, tgt_key_padding_mask = {}, memory_key_padding_mask = {};
  /// Whether a target sees no target after it, as by a tgt_mask that says so.
  bool tgt_is_causal = false;
};

/// An encoder and a decoder, each with a final norm (Vaswani 2017). Parameters bear the names of
/// torch.nn.Transformer: encoder.layers.N.*, encoder.norm.*, decoder.layers.N.*, decoder.norm.*; matrices
/// start as there, by Glorot's uniform distribution.
class ATTEND_API TransformerImpl : public torch::nn::Cloneable<TransformerImpl> {
 public:
  explicit TransformerImpl(const TransformerOptions& options = TransformerOptions());

  void reset() override;
  void reset_parameters();
  void pretty_print(std::ostream& stream) const override;

  /// src [B, S, d_model], tgt [B, L, d_model], or both without B -> the shape of tgt.
  torch::Tensor forward(const torch::Tensor& src, const torch::Tensor& tgt,
                        const TransformerMasks& masks = {});

  TransformerOptions options;
  TransformerEncoder encoder{nullptr};
  TransformerDecoder decoder{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({2, torch::nn::AnyValue(TransformerMasks())})
};

/// Holder of `TransformerImpl`.
class Transformer : public torch::nn::ModuleHolder<TransformerImpl> {
 public:
  using torch::nn::ModuleHolder<TransformerImpl>::ModuleHolder;
  using Impl = TransformerImpl;

  torch::Tensor operator()(const torch::Tensor& src, const torch::Tensor& tgt,
                           const TransformerMasks& masks = {}) {
    return get()->forward(src, tgt, masks);
  }
};

}  // namespace attend::nn
