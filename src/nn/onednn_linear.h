#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/nn/modules/linear.h>

#include <optional>
#include <string_view>

namespace attend::nn {

/// The elementwise function that is applied to a product.
enum class Pointwise { none, relu, gelu };

/// LibTorch's product with weights by oneDNN. The operator is not part of LibTorch's interface, so that
/// another version may give it other arguments: it is called only if its schema is the one that this library
/// knows.
class OneDnnLinear {
 public:
  /// The schema that `operator()` is written for.
  static constexpr std::string_view kSchema =
      "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) "
      "-> "
      "Tensor Y";

  /// Looks the operator up; it is unavailable unless its schema is `schema`.
  explicit OneDnnLinear(std::string_view schema = kSchema);

  bool is_available() const { return operator_.has_value(); }

  /// x W^T + b, or gelu(x W^T + b).
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        bool apply_gelu) const;

 private:
  std::optional<c10::OperatorHandle> operator_;
};

/// The operator of the LibTorch that is loaded, looked up once.
const OneDnnLinear& onednn_linear();

/// pointwise(x W^T + b) for x [..., in], weight [out, in] and bias [out], which may be undefined. In float32
/// on the CPU without gradients it is computed by oneDNN, else, or where that is unavailable, by at::linear.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Pointwise pointwise = Pointwise::none, const OneDnnLinear& onednn = onednn_linear());

inline torch::nn::Linear make_linear(int64_t in, int64_t out, bool bias = false) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(bias));
}

/// The same with the parameters of a layer.
inline at::Tensor linear(const at::Tensor& x, const torch::nn::LinearImpl& layer,
                         Pointwise pointwise = Pointwise::none) {
  return linear(x, layer.weight, layer.bias, pointwise);
}

}  // namespace attend::nn
