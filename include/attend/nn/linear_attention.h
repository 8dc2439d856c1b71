#pragma once

#include <attend/export.h>
#include <attend/linear_attention.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <functional>

namespace attend::nn {

/// What a recurrent mixer carries from one part of a sequence to the next. An empty one stands before the
/// first part. A part of one token without gradients costs the same whatever came before, and changes
/// `memory` in place; any other leaves new tensors, with their graph where gradients are computed. A copy
/// shares its tensors: `copy.memory = state.memory.clone()` makes one that goes its own way.
struct RecurrentState {
  torch::Tensor memory;  ///< [B, H, D, Dv], or with a normaliser Dv + 1, of float32 (float64 for float64)
  torch::Tensor recent;  ///< GatedDeltaNet: the last inputs of its convolutions, [B, kernel - 1, channels]
  int64_t length = 0;    ///< tokens so far

  /// Sequence b becomes what sequences[b] was; int64 [B'] (the beams of a search).
  ATTEND_API void select(const torch::Tensor& sequences);
};

/// Makes the mixer of a layer: a module whose forward takes (torch::Tensor, RecurrentState*). An empty one
/// stands for softmax attention.
using MixerFactory = std::function<torch::nn::AnyModule()>;

/// For a layer of a Transformer, one of the modules below or of your own:
/// `as_mixer<GatedDeltaNet>(GatedDeltaNetOptions(512, 8))`.
template <typename Mixer, typename Options>
MixerFactory as_mixer(const Options& options) {
  return [options] { return torch::nn::AnyModule(Mixer(options)); };
}

// Each mixer maps [B, L, E] or [L, E] to the same shape and is causal, so that it can stand in a layer where
// softmax attention stands in another. forward(input, &state) goes on from `state` and leaves in it what the
// next part goes on from. Errors: c10::Error naming the argument, what was expected and what it got.

/// Options for `LinearAttention`. A width of 0 stands for the default that is named.
struct ATTEND_API LinearAttentionOptions {
  LinearAttentionOptions(int64_t embed_dim, int64_t num_heads)
      : embed_dim_(embed_dim), num_heads_(num_heads) {}
  /// The width E of input and result.
  TORCH_ARG(int64_t, embed_dim);
  TORCH_ARG(int64_t, num_heads);
  /// The channels of a head's queries and keys. Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// The channels of a head's values. Default: head_dim.
  TORCH_ARG(int64_t, head_v_dim) = 0;
  TORCH_ARG(FeatureMap, feature_map) = FeatureMap::elu_plus_one;
  /// How many random features, for `FeatureMap::random_features` alone. Default: twice head_dim.
  TORCH_ARG(int64_t, num_features) = 0;
  /// Whether outputs are divided by their normaliser. Default: true.
  TORCH_ARG(bool, normalize) = true;
  /// Whether a token sees no later one. Default: true.
  TORCH_ARG(bool, is_causal) = true;
  /// Whether the projections add a learned bias. Default: false.
  TORCH_ARG(bool, bias) = false;
};

/// Linear attention (Katharopoulos 2020), or with random features that of the Performer (Choromanski 2021):
/// out = o_proj(heads of linear_attention(q_proj x, k_proj x, v_proj x)). Without is_causal there is no
/// state. Buffer, with random features: projection [num_features, head_dim].
class ATTEND_API LinearAttentionImpl : public torch::nn::Cloneable<LinearAttentionImpl> {
 public:
  LinearAttentionImpl(int64_t embed_dim, int64_t num_heads)
      : LinearAttentionImpl(LinearAttentionOptions(embed_dim, num_heads)) {}
  explicit LinearAttentionImpl(const LinearAttentionOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  LinearAttentionOptions options;
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
  torch::Tensor projection;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};
TORCH_MODULE(LinearAttention);

/// Options for `Retention`.
struct ATTEND_API RetentionOptions {
  RetentionOptions(int64_t embed_dim, int64_t num_heads) : embed_dim_(embed_dim), num_heads_(num_heads) {}
  TORCH_ARG(int64_t, embed_dim);
  TORCH_ARG(int64_t, num_heads);
  /// Even. Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// Default: twice head_dim.
  TORCH_ARG(int64_t, head_v_dim) = 0;
  TORCH_ARG(double, eps) = 1e-5;
};

/// Multi-scale retention (Sun 2023, section 2.2): head h forgets with the fixed decay 1 - 2^(-5 - h), queries
/// and keys are rotated by their positions, each head's output is normalised by itself (group norm), and
/// out = o_proj(silu(g_proj x) * heads).
class ATTEND_API RetentionImpl : public torch::nn::Cloneable<RetentionImpl> {
 public:
  RetentionImpl(int64_t embed_dim, int64_t num_heads)
      : RetentionImpl(RetentionOptions(embed_dim, num_heads)) {}
  explicit RetentionImpl(const RetentionOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  RetentionOptions options;
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, g_proj{nullptr}, o_proj{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};
TORCH_MODULE(Retention);

/// Options for `GatedLinearAttention`.
struct ATTEND_API GatedLinearAttentionOptions {
  GatedLinearAttentionOptions(int64_t embed_dim, int64_t num_heads)
      : embed_dim_(embed_dim), num_heads_(num_heads) {}
  TORCH_ARG(int64_t, embed_dim);
  TORCH_ARG(int64_t, num_heads);
  /// Default: half of embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_v_dim) = 0;
  /// The rank of the projection that the decays come from.
  TORCH_ARG(int64_t, gate_rank) = 16;
  /// The decay is the root of this order of a sigmoid: close to 1.
  TORCH_ARG(double, gate_temperature) = 16;
  TORCH_ARG(double, eps) = 1e-5;
};

/// Gated linear attention (Yang 2023, section 4.4): each channel of a head forgets with a decay of the
/// token's own, log_decay = log sigmoid(gk_proj x) / temperature, each head's output is divided by its root
/// mean square, times g_norm_weight, and out = o_proj(silu(g_proj x) * heads). gk_proj_down and gk_proj_up
/// are the two factors of gk_proj, the latter with a bias.
class ATTEND_API GatedLinearAttentionImpl : public torch::nn::Cloneable<GatedLinearAttentionImpl> {
 public:
  GatedLinearAttentionImpl(int64_t embed_dim, int64_t num_heads)
      : GatedLinearAttentionImpl(GatedLinearAttentionOptions(embed_dim, num_heads)) {}
  explicit GatedLinearAttentionImpl(const GatedLinearAttentionOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  GatedLinearAttentionOptions options;
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, g_proj{nullptr}, o_proj{nullptr};
  torch::nn::Linear gk_proj_down{nullptr}, gk_proj_up{nullptr};
  torch::Tensor g_norm_weight;  ///< [head_v_dim]

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};
TORCH_MODULE(GatedLinearAttention);

/// Options for `GatedDeltaNet`.
struct ATTEND_API GatedDeltaNetOptions {
  GatedDeltaNetOptions(int64_t embed_dim, int64_t num_heads) : embed_dim_(embed_dim), num_heads_(num_heads) {}
  TORCH_ARG(int64_t, embed_dim);
  TORCH_ARG(int64_t, num_heads);
  /// Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// Default: twice head_dim.
  TORCH_ARG(int64_t, head_v_dim) = 0;
  /// Tokens that each short convolution sees, the token itself among them.
  TORCH_ARG(int64_t, conv_size) = 4;
  TORCH_ARG(double, eps) = 1e-5;
};

/// Gated DeltaNet (Yang & Kautz 2024, section 3.4): queries, keys and values go through a causal convolution
/// of each channel and silu, queries and keys are brought to length 1, and per head and token
///
///     log_decay = -exp(A_log) softplus(a_proj x + dt_bias),  beta = sigmoid(b_proj x)
///
/// each head's output is divided by its root mean square, times o_norm_weight and silu(g_proj x), and goes
/// through o_proj. Parameters beside the projections: q_conv, k_conv, v_conv [channels, conv_size], A_log and
/// dt_bias [H], o_norm_weight [head_v_dim].
class ATTEND_API GatedDeltaNetImpl : public torch::nn::Cloneable<GatedDeltaNetImpl> {
 public:
  GatedDeltaNetImpl(int64_t embed_dim, int64_t num_heads)
      : GatedDeltaNetImpl(GatedDeltaNetOptions(embed_dim, num_heads)) {}
  explicit GatedDeltaNetImpl(const GatedDeltaNetOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  GatedDeltaNetOptions options;
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, g_proj{nullptr}, o_proj{nullptr};
  torch::nn::Linear a_proj{nullptr}, b_proj{nullptr};
  torch::Tensor q_conv, k_conv, v_conv, A_log, dt_bias, o_norm_weight;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})

 private:
  torch::Tensor with_recent(const torch::Tensor& projected, const RecurrentState* state) const;
  torch::Tensor convolved(const torch::Tensor& with_recent) const;
};
TORCH_MODULE(GatedDeltaNet);

}  // namespace attend::nn
