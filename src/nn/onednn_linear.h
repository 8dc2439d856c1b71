#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/nn/modules/linear.h>

#include <optional>
#include <string_view>

namespace attend::nn {

/// The elementwise function that is applied to a product.
enum class Pointwise { none, relu, gelu };

/// LibTorch's private operator for products with weights by oneDNN. Another version of LibTorch may give it
/// other parameters, so it is called only if it has the schema that this library knows.
class OneDnnLinear {
 public:
  /// The schema that `operator()` is written for.
  static constexpr std::string_view kSchema =
      "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) "
      "-> "
      "Tensor Y";

  /// Looks the operator up. It counts as unavailable unless its schema is `schema`.
  explicit OneDnnLinear(std::string_view schema = kSchema);

  bool is_available() const { return operator_.has_value(); }

  /// Computes x W^T + b, or gelu(x W^T + b).
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        bool apply_gelu) const;

 private:
  std::optional<c10::OperatorHandle> operator_;
};

/// Returns the operator of the loaded LibTorch, which the first call looks up.
const OneDnnLinear& onednn_linear();

/// Computes pointwise(x W^T + b) for x [..., in], weight [out, in] and bias [out], which may be undefined.
/// oneDNN computes it for float32 on the CPU without gradients; otherwise, or if oneDNN is unavailable,
/// at::linear does.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Pointwise pointwise = Pointwise::none, const OneDnnLinear& onednn = onednn_linear());

inline torch::nn::Linear make_linear(int64_t in, int64_t out, bool bias = false) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(bias));
}

/// Does the same with the parameters of a layer.
inline at::Tensor linear(const at::Tensor& x, const torch::nn::LinearImpl& layer,
                         Pointwise pointwise = Pointwise::none) {
  return linear(x, layer.weight, layer.bias, pointwise);
}

}  // namespace attend::nn
