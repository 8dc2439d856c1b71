#pragma once

#include <attend/export.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/common.h>
#include <torch/nn/pimpl.h>

namespace attend::nn {

/// The function that a `Norm` computes.
enum class NormKind {
  layer_norm,  ///< (x - mean(x)) / sqrt(var(x) + eps) * weight + bias (Ba 2016)
  rms_norm,    ///< x / sqrt(mean(x^2) + eps) * weight (Zhang 2019)
};

/// Options for `Norm`.
struct NormOptions {
  /// A layer norm of this width.
  // NOLINTNEXTLINE(google-explicit-constructor): as torch::nn::LayerNormOptions
  NormOptions(int64_t width) : width_(width) {}
  /// The size of the last dimension, at least 1.
  TORCH_ARG(int64_t, width);
  /// The kind of norm. Default: layer_norm.
  TORCH_ARG(NormKind, kind) = NormKind::layer_norm;
  /// Added to the variance or the mean square. Default: 1e-5.
  TORCH_ARG(double, eps) = 1e-5;
  /// Whether a layer norm adds a learned bias; an RMS norm has none. Default: true.
  TORCH_ARG(bool, bias) = true;
};

/// Layer norm or RMS norm over the last dimension. Parameters: weight [width], and for a layer norm with a
/// bias, bias [width].
class ATTEND_API NormImpl : public torch::nn::Cloneable<NormImpl> {
 public:
  /// A norm with these options. Errors: c10::Error for a width below 1 or a negative eps.
  explicit NormImpl(const NormOptions& options);

  /// Sets every weight to 1 and every bias to 0.
  void reset() override;
  /// Prints the options.
  void pretty_print(std::ostream& stream) const override;
  /// [..., width] -> the same shape and dtype.
  torch::Tensor forward(const torch::Tensor& x);

  /// The options.
  NormOptions options;
  /// The parameters; `bias` is undefined for a norm without bias.
  torch::Tensor weight, bias;
};

/// Holder of `NormImpl`.
TORCH_MODULE(Norm);

}  // namespace attend::nn
