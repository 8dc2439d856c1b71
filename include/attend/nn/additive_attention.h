#pragma once

#include <attend/export.h>
#include <attend/mask.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// Options for `AdditiveAttention`; each width is at least 1.
struct AdditiveAttentionOptions {
  /// Options with the defaults below.
  AdditiveAttentionOptions(int64_t d_q, int64_t d_k, int64_t d_hidden)
      : d_q_(d_q), d_k_(d_k), d_hidden_(d_hidden) {}
  /// The width of the queries.
  TORCH_ARG(int64_t, d_q);
  /// The width of the keys.
  TORCH_ARG(int64_t, d_k);
  /// The width of the hidden layer, to which queries and keys are projected.
  TORCH_ARG(int64_t, d_hidden);
  /// The probability that a weight is dropped while training. Default: 0.
  TORCH_ARG(double, dropout) = 0.0;
  /// Whether the projection of the queries adds a learned bias. Default: false, as in the paper.
  TORCH_ARG(bool, bias) = false;
};

/// Additive attention with learned projections (Bahdanau 2014). A network with one hidden layer computes the
/// scores:
///
///     score(q, k) = v^T tanh(W q + U k),  weights = softmax(score),  result = weights V
///
/// The values V are not projected; often they are the keys. Parameters: q_linear.weight [d_hidden, d_q] (W),
/// k_linear.weight [d_hidden, d_k] (U), score_weight [d_hidden] (v), and with bias q_linear.bias [d_hidden].
class ATTEND_API AdditiveAttentionImpl : public torch::nn::Cloneable<AdditiveAttentionImpl> {
 public:
  /// Additive attention with the default options.
  AdditiveAttentionImpl(int64_t d_q, int64_t d_k, int64_t d_hidden)
      : AdditiveAttentionImpl(AdditiveAttentionOptions(d_q, d_k, d_hidden)) {}
  /// Additive attention with these options.
  explicit AdditiveAttentionImpl(const AdditiveAttentionOptions& options);

  /// Registers the parameters and initialises them.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;

  /// Returns the result [B, Lq, d_v] for q [B, Lq, d_q], k [B, Lk, d_k] and v [B, Lk, d_v], or all without B.
  /// In `mask`, true = may attend; a tensor must broadcast to [B, Lq, Lk]. Errors: c10::Error that states the
  /// argument, what was expected and what was given.
  torch::Tensor forward(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                        const Mask& mask = {});

  /// Returns the attention weights [B, Lq, Lk], or [Lq, Lk], without dropout.
  torch::Tensor weights(const torch::Tensor& q, const torch::Tensor& k, const Mask& mask = {});

  /// The options.
  AdditiveAttentionOptions options;
  /// The projections of queries and keys.
  torch::nn::Linear q_linear{nullptr}, k_linear{nullptr};
  /// The weight of each unit of the hidden layer in a score, [d_hidden].
  torch::Tensor score_weight;

 protected:
  FORWARD_HAS_DEFAULT_ARGS({3, torch::nn::AnyValue(Mask())})
};

/// Holder of `AdditiveAttentionImpl`.
TORCH_MODULE(AdditiveAttention);

}  // namespace attend::nn
