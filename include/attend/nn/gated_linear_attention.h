#pragma once

#include <attend/export.h>
#include <attend/nn/mixer.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// Options for `GatedLinearAttention`. A width of 0 means its default.
struct ATTEND_API GatedLinearAttentionOptions {
  GatedLinearAttentionOptions(int64_t embed_dim, int64_t num_heads)
      : embed_dim_(embed_dim), num_heads_(num_heads) {}
  /// The width E of the input and the result.
  TORCH_ARG(int64_t, embed_dim);
  /// The number of heads H.
  TORCH_ARG(int64_t, num_heads);
  /// The number of channels of the queries and keys of a head. Default: embed_dim / num_heads / 2, at least
  /// 1.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// The number of channels of the values of a head. Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, value_head_dim) = 0;
  /// The rank of the projection of the gates. Default: 16.
  TORCH_ARG(int64_t, gate_rank) = 16;
  /// The logarithm of the decay is divided by this value, so that decays are close to 1. Default: 16.
  TORCH_ARG(double, gate_temperature) = 16;
  /// Added to the mean square in the norm of the output of a head. Default: 1e-5.
  TORCH_ARG(double, eps) = 1e-5;
};

/// Gated linear attention (Yang 2023, section 4.4). Each channel of the keys of a head has a decay that
/// depends on the token, and the output of each head goes through an RMS norm with the weight g_norm_weight:
///
///     log_decay = log(sigmoid(gk_proj_up(gk_proj_down x))) / gate_temperature
///     result    = o_proj(silu(g_proj x) * rms_norm(heads))
///
/// Parameters: q_proj, k_proj, v_proj, g_proj, o_proj and gk_proj_down without biases, gk_proj_up with a
/// bias, g_norm_weight [value_head_dim].
///
/// Errors (c10::Error): an input with another shape, dtype or device than the parameters require; a state
/// with other sizes than this module and input need; options out of their range.
class ATTEND_API GatedLinearAttentionImpl : public torch::nn::Cloneable<GatedLinearAttentionImpl>,
                                            public CheckedMixer {
 public:
  GatedLinearAttentionImpl(int64_t embed_dim, int64_t num_heads)
      : GatedLinearAttentionImpl(GatedLinearAttentionOptions(embed_dim, num_heads)) {}
  explicit GatedLinearAttentionImpl(const GatedLinearAttentionOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  void check(const torch::Tensor& input, const RecurrentState* state) const override;

  /// input [B, L, embed_dim] or [L, embed_dim] -> the same shape. With a state, the input continues the
  /// sequence of the state, and the state is updated.
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  /// The options, with every default resolved.
  GatedLinearAttentionOptions options;
  /// The projections.
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, g_proj{nullptr}, o_proj{nullptr};
  /// The two factors of the projection of the gates.
  torch::nn::Linear gk_proj_down{nullptr}, gk_proj_up{nullptr};
  /// The weight of the norm, [value_head_dim].
  torch::Tensor g_norm_weight;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};
TORCH_MODULE(GatedLinearAttention);

}  // namespace attend::nn
