#pragma once

#include <attend/export.h>
#include <attend/nn/mixer.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// Options for `GatedDeltaNet`. A width of 0 means its default.
struct ATTEND_API GatedDeltaNetOptions {
  GatedDeltaNetOptions(int64_t embed_dim, int64_t num_heads) : embed_dim_(embed_dim), num_heads_(num_heads) {}
  /// The width E of the input and the result.
  TORCH_ARG(int64_t, embed_dim);
  /// The number of heads H.
  TORCH_ARG(int64_t, num_heads);
  /// The number of channels of the queries and keys of a head. Default: embed_dim / num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// The number of channels of the values of a head. Default: 2 * head_dim.
  TORCH_ARG(int64_t, value_head_dim) = 0;
  /// The length of the short convolutions in tokens, including the current token. Default: 4.
  TORCH_ARG(int64_t, conv_size) = 4;
  /// Added to the mean square in the norm of the output of a head. Default: 1e-5.
  TORCH_ARG(double, eps) = 1e-5;
};

/// Gated DeltaNet (Yang & Kautz 2024, section 3.4). Queries, keys and values go through a causal convolution
/// of each channel and silu, and queries and keys are normalised to length 1. For each head and token
///
///     log_decay = -exp(A_log) softplus(a_proj x + dt_bias)
///     beta      = sigmoid(b_proj x)
///     result    = o_proj(silu(g_proj x) * rms_norm(heads))
///
/// Parameters: q_proj, k_proj, v_proj, a_proj, b_proj, g_proj, o_proj without biases; q_conv, k_conv, v_conv
/// [channels, conv_size]; A_log, dt_bias [H]; o_norm_weight [value_head_dim].
///
/// Errors (c10::Error): an input with another shape, dtype or device than the parameters require; a state
/// with other sizes than this module and input need; options out of their range.
class ATTEND_API GatedDeltaNetImpl : public torch::nn::Cloneable<GatedDeltaNetImpl>, public CheckedMixer {
 public:
  GatedDeltaNetImpl(int64_t embed_dim, int64_t num_heads)
      : GatedDeltaNetImpl(GatedDeltaNetOptions(embed_dim, num_heads)) {}
  explicit GatedDeltaNetImpl(const GatedDeltaNetOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  void check(const torch::Tensor& input, const RecurrentState* state) const override;

  /// input [B, L, embed_dim] or [L, embed_dim] -> the same shape. With a state, the input continues the
  /// sequence of the state, and the state is updated.
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  /// The options, with every default resolved.
  GatedDeltaNetOptions options;
  /// The projections.
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, g_proj{nullptr}, o_proj{nullptr};
  /// The projections of the decay and of beta.
  torch::nn::Linear a_proj{nullptr}, b_proj{nullptr};
  /// The filters of the short convolutions, [channels, conv_size].
  torch::Tensor q_conv, k_conv, v_conv;
  /// The parameters of the decay, [H].
  torch::Tensor A_log, dt_bias;
  /// The weight of the norm, [value_head_dim].
  torch::Tensor o_norm_weight;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};
TORCH_MODULE(GatedDeltaNet);

}  // namespace attend::nn
