#pragma once

#include <attend/export.h>
#include <attend/nn/mixer.h>
#include <attend/nn/multi_head_attention.h>
#include <attend/nn/norm.h>

namespace attend::nn {

/// The activation of the feed-forward network, linear2(activation(linear1(x))). Activations with a gate have
/// one more linear layer, linear_gate (Shazeer 2020).
enum class Activation {
  relu,       ///< max(x, 0)
  gelu,       ///< x Phi(x), by the error function
  gelu_tanh,  ///< the approximation of GELU by tanh (GPT-2)
  silu,       ///< x sigmoid(x)
  swiglu,     ///< silu(linear_gate(x)) * linear1(x)
  geglu,      ///< gelu(linear_gate(x)) * linear1(x)
};

/// Options for a layer of an encoder or a decoder. The defaults are those of torch.nn.TransformerEncoderLayer
/// but for batch_first.
struct TransformerLayerOptions {
  /// A layer with the defaults below.
  TransformerLayerOptions(int64_t d_model, int64_t nhead) : d_model_(d_model), nhead_(nhead) {}
  /// The width of the inputs and of the result.
  TORCH_ARG(int64_t, d_model);
  /// The number of heads.
  TORCH_ARG(int64_t, nhead);
  /// The width of the hidden layer of the feed-forward network. Default: 2048.
  TORCH_ARG(int64_t, dim_feedforward) = 2048;
  /// The probability of dropout, which is applied to attention weights, to the hidden layer and to the
  /// outputs that are added to the residual stream. In a layer it replaces the dropout of the attention
  /// options. Default: 0.1.
  TORCH_ARG(double, dropout) = 0.1;
  /// The activation of the feed-forward network. Default: relu.
  TORCH_ARG(Activation, activation) = Activation::relu;
  /// The kind of the norms. Default: layer_norm.
  TORCH_ARG(NormKind, norm) = NormKind::layer_norm;
  /// The eps of the norms. Default: 1e-5.
  TORCH_ARG(double, layer_norm_eps) = 1e-5;
  /// Whether inputs are [B, L, d_model]; if false, [L, B, d_model]. Default: true.
  TORCH_ARG(bool, batch_first) = true;
  /// Whether the norm comes before each part of the layer, x + part(norm(x)), or after it, norm(x + part(x)).
  /// Default: false, after it.
  TORCH_ARG(bool, norm_first) = false;
  /// Whether linear layers and layer norms add a learned bias. Default: true.
  TORCH_ARG(bool, bias) = true;
  /// Further options of the self-attention (grouped heads, rotary embeddings, windows, ...). The options
  /// above determine embed_dim, num_heads, dropout, bias and batch_first: it is an error if they have other
  /// values here, except for the defaults of `MultiHeadAttentionOptions()`.
  TORCH_ARG(MultiHeadAttentionOptions, attention);
  /// A causal mixer that replaces the self-attention of an encoder layer; see `as_mixer`. Default: none.
  TORCH_ARG(MixerFactory, mixer);
};

/// A layer of an encoder (Vaswani 2017, section 3.1): self-attention and a feed-forward network, each with
/// dropout, a residual connection and a norm. With `attention().is_causal(true)` or a `mixer` it is a layer
/// of a decoder-only language model.
///
/// Parameters bear the names of torch.nn.TransformerEncoderLayer: self_attn.* (mixer.* with a mixer),
/// linear1.*, linear2.*, norm1.*, norm2.*; activations with a gate add linear_gate.*.
class ATTEND_API TransformerEncoderLayerImpl : public torch::nn::Cloneable<TransformerEncoderLayerImpl> {
 public:
  /// A layer with the default options.
  TransformerEncoderLayerImpl(int64_t d_model, int64_t nhead)
      : TransformerEncoderLayerImpl(TransformerLayerOptions(d_model, nhead)) {}
  /// A layer with these options.
  explicit TransformerEncoderLayerImpl(const TransformerLayerOptions& options);

  /// Registers the modules of the layer.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  void check(const torch::Tensor& src, const MultiHeadAttentionParams& params = {},
             const RecurrentState* state = nullptr) const;

  /// src [B, L, d_model] or [L, d_model] -> the same shape. `params` has masks and a cache, as in
  /// `MultiHeadAttention`; its attn_mask is PyTorch's src_mask. A mixer is always causal and takes no
  /// `params`; it continues from `state` and updates it.
  torch::Tensor forward(const torch::Tensor& src, const MultiHeadAttentionParams& params = {},
                        RecurrentState* state = nullptr);

  /// The options. A change of dropout, norm_first or batch_first after construction takes effect in the next
  /// call. After a change that the parts of the layer do not fit, the next call fails.
  TransformerLayerOptions options;
  /// The self-attention; empty with a mixer.
  MultiHeadAttention self_attn{nullptr};
  /// The mixer; empty with self-attention.
  torch::nn::AnyModule mixer;
  /// The feed-forward network; linear_gate is empty unless the activation has a gate.
  torch::nn::Linear linear1{nullptr}, linear2{nullptr}, linear_gate{nullptr};
  /// The norms of the two parts.
  Norm norm1{nullptr}, norm2{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(MultiHeadAttentionParams())},
                           {2, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})

 private:
  friend class TransformerEncoderImpl;
  torch::Tensor run(const torch::Tensor& src, const MultiHeadAttentionParams& params, RecurrentState* state);
};

/// Holder of `TransformerEncoderLayerImpl`.
using TransformerEncoderLayer = Holder<TransformerEncoderLayerImpl>;

/// A layer of a decoder (Vaswani 2017, section 3.1): self-attention, attention to the memory (the result of
/// an encoder), and a feed-forward network.
///
/// Parameters bear the names of torch.nn.TransformerDecoderLayer: self_attn.*, multihead_attn.*, linear1.*,
/// linear2.*, norm1.*, norm2.*, norm3.*; activations with a gate add linear_gate.*.
class ATTEND_API TransformerDecoderLayerImpl : public torch::nn::Cloneable<TransformerDecoderLayerImpl> {
 public:
  /// A layer with the default options.
  TransformerDecoderLayerImpl(int64_t d_model, int64_t nhead)
      : TransformerDecoderLayerImpl(TransformerLayerOptions(d_model, nhead)) {}
  /// A layer with these options.
  explicit TransformerDecoderLayerImpl(const TransformerLayerOptions& options);

  /// Registers the modules of the layer.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  void check(const torch::Tensor& tgt, const torch::Tensor& memory, const MultiHeadAttentionParams& self = {},
             const MultiHeadAttentionParams& cross = {}) const;

  /// tgt [B, L, d_model], memory [B, S, d_model], or both without B -> the shape of tgt. `self` and `cross`
  /// have masks and caches for the self-attention and for the attention to the memory. As in PyTorch, the
  /// self-attention is causal only if a mask or the options make it so.
  torch::Tensor forward(const torch::Tensor& tgt, const torch::Tensor& memory,
                        const MultiHeadAttentionParams& self = {},
                        const MultiHeadAttentionParams& cross = {});

  /// The options. A change of dropout, norm_first or batch_first after construction takes effect in the next
  /// call. After a change that the parts of the layer do not fit, the next call fails.
  TransformerLayerOptions options;
  /// The self-attention, and the attention to the memory.
  MultiHeadAttention self_attn{nullptr}, multihead_attn{nullptr};
  /// The feed-forward network; linear_gate is empty unless the activation has a gate.
  torch::nn::Linear linear1{nullptr}, linear2{nullptr}, linear_gate{nullptr};
  /// The norms of the three parts.
  Norm norm1{nullptr}, norm2{nullptr}, norm3{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({2, torch::nn::AnyValue(MultiHeadAttentionParams())},
                           {3, torch::nn::AnyValue(MultiHeadAttentionParams())})

 private:
  friend class TransformerDecoderImpl;
  torch::Tensor run(const torch::Tensor& tgt, const torch::Tensor& memory,
                    const MultiHeadAttentionParams& self, const MultiHeadAttentionParams& cross);
};

/// Holder of `TransformerDecoderLayerImpl`.
using TransformerDecoderLayer = Holder<TransformerDecoderLayerImpl>;

}  // namespace attend::nn
