#pragma once

#include <attend/export.h>
#include <attend/mask.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/modules/container/any.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// Options for `BilinearAttention`; each width is at least 1.
struct BilinearAttentionOptions {
  /// Options with the defaults below.
  BilinearAttentionOptions(int64_t d_q, int64_t d_k) : d_q_(d_q), d_k_(d_k) {}
  /// The width of the queries.
  TORCH_ARG(int64_t, d_q);
  /// The width of the keys.
  TORCH_ARG(int64_t, d_k);
  /// Multiplies the scores. Default: 1, as in the paper.
  TORCH_ARG(double, scale) = 1.0;
  /// The probability that a weight is dropped while training. Default: 0.
  TORCH_ARG(double, dropout) = 0.0;
};

/// Attention whose score is a learned bilinear form (Luong 2015, "general"):
///
///     score(q, k) = k^T W q,  weights = softmax(scale * score),  result = weights V
///
/// The values V are not projected; often they are the keys. Parameter: q_linear.weight [d_k, d_q] (W).
class ATTEND_API BilinearAttentionImpl : public torch::nn::Cloneable<BilinearAttentionImpl> {
 public:
  /// Bilinear attention with the default options.
  BilinearAttentionImpl(int64_t d_q, int64_t d_k)
      : BilinearAttentionImpl(BilinearAttentionOptions(d_q, d_k)) {}
  /// Bilinear attention with these options.
  explicit BilinearAttentionImpl(const BilinearAttentionOptions& options);

  /// Registers the projection.
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
  BilinearAttentionOptions options;
  /// The bilinear form W as a projection of the queries.
  torch::nn::Linear q_linear{nullptr};

 protected:
  FORWARD_HAS_DEFAULT_ARGS({3, torch::nn::AnyValue(Mask())})
};

/// Holder of `BilinearAttentionImpl`.
TORCH_MODULE(BilinearAttention);

}  // namespace attend::nn
