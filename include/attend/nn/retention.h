#pragma once

#include <attend/export.h>
#include <attend/nn/mixer.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// Options for `Retention`. A width of 0 means its default.
struct ATTEND_API RetentionOptions {
  RetentionOptions(int64_t embed_dim, int64_t num_heads) : embed_dim_(embed_dim), num_heads_(num_heads) {}
  /// The width E of the input and the result.
  TORCH_ARG(int64_t, embed_dim);
  /// The number of heads H.
  TORCH_ARG(int64_t, num_heads);
  /// The number of channels of the queries and keys of a head, which must be even. Default: embed_dim /
  /// num_heads.
  TORCH_ARG(int64_t, head_dim) = 0;
  /// The number of channels of the values of a head. Default: 2 * head_dim.
  TORCH_ARG(int64_t, value_head_dim) = 0;
  /// Added to the variance in the norm of the output of a head. Default: 1e-5.
  TORCH_ARG(double, eps) = 1e-5;
};

/// Multi-scale retention (Sun 2023, section 2.2). Head h has the constant decay 1 - 2^(-5 - h), queries and
/// keys have rotary position embeddings, and the output of each head is normalised (group norm without
/// parameters):
///
///     result = o_proj(silu(g_proj x) * heads)
///
/// Parameters: q_proj, k_proj, v_proj, g_proj, o_proj, without biases.
///
/// Errors (c10::Error): an input with another shape, dtype or device than the parameters require; a state
/// with other sizes than this module and input need; options out of their range.
class ATTEND_API RetentionImpl : public torch::nn::Cloneable<RetentionImpl>, public CheckedMixer {
 public:
  RetentionImpl(int64_t embed_dim, int64_t num_heads)
      : RetentionImpl(RetentionOptions(embed_dim, num_heads)) {}
  explicit RetentionImpl(const RetentionOptions& options);

  void reset() override;
  void pretty_print(std::ostream& stream) const override;

  /// Throws the error of `forward` with these arguments, if it has one, and changes nothing.
  void check(const torch::Tensor& input, const RecurrentState* state) const override;

  /// input [B, L, embed_dim] or [L, embed_dim] -> the same shape. With a state, the input continues the
  /// sequence of the state, and the state is updated.
  torch::Tensor forward(const torch::Tensor& input, RecurrentState* state = nullptr);

  /// The options, with every default resolved.
  RetentionOptions options;
  /// The projections.
  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, g_proj{nullptr}, o_proj{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({1, torch::nn::AnyValue(static_cast<RecurrentState*>(nullptr))})
};
TORCH_MODULE(Retention);

}  // namespace attend::nn
