#pragma once

#include <attend/export.h>
#include <attend/mask.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// Options for `Attention`; each width is at least 1.
struct AttentionOptions {
  /// Options with the defaults below.
  AttentionOptions(int64_t d_q, int64_t d_k, int64_t d_v) : d_q_(d_q), d_k_(d_k), d_v_(d_v) {}
  /// The width of the queries.
  TORCH_ARG(int64_t, d_q);
  /// The width of the keys, to which the queries are projected.
  TORCH_ARG(int64_t, d_k);
  /// The width of the values and of the result.
  TORCH_ARG(int64_t, d_v);
  /// Whether the three projections add a learned bias. Default: true.
  TORCH_ARG(bool, bias) = true;
};

/// Single-head attention with a linear projection of each input:
///
///     Q = q_linear(q), K = k_linear(k), V = v_linear(v)
///     weights = softmax(Q K^T / sqrt(d_k)),  result = weights V
///
/// Parameters: q_linear.weight [d_k, d_q], k_linear.weight [d_k, d_k], v_linear.weight [d_v, d_v], and the
/// biases [d_k], [d_k], [d_v]. A Python module with three `torch.nn.Linear` of these names has the same
/// parameters.
class ATTEND_API AttentionImpl : public torch::nn::Cloneable<AttentionImpl> {
 public:
  /// Attention with the default options.
  AttentionImpl(int64_t d_q, int64_t d_k, int64_t d_v) : AttentionImpl(AttentionOptions(d_q, d_k, d_v)) {}
  /// Attention with these options.
  explicit AttentionImpl(const AttentionOptions& options);

  /// Registers the three linear layers.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;

  /// Returns the result [B, Lq, d_v] for q [B, Lq, d_q], k [B, Lk, d_k] and v [B, Lk, d_v], or all without B.
  /// In `mask`, true = may attend; a tensor must broadcast to [B, Lq, Lk]. Errors: c10::Error that states the
  /// argument, what was expected and what was given.
  torch::Tensor forward(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                        const Mask& mask = {});

  /// Returns the attention weights [B, Lq, Lk], or [Lq, Lk]. Each row sums to 1, a fully masked row to 0.
  torch::Tensor weights(const torch::Tensor& q, const torch::Tensor& k, const Mask& mask = {});

  /// The options.
  AttentionOptions options;
  /// The projections of queries, keys and values.
  torch::nn::Linear q_linear{nullptr}, k_linear{nullptr}, v_linear{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({3, torch::nn::AnyValue(Mask())})
};

/// Holder of `AttentionImpl`.
TORCH_MODULE(Attention);

}  // namespace attend::nn
