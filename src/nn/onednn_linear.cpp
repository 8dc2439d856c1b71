#include "nn/onednn_linear.h"

#include <ATen/Context.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>

#include <algorithm>
#include <array>

#include "core/gradients.h"
#include "core/torch_private.h"

namespace attend::nn {
namespace {

constexpr int64_t kMinOneDnnRows = 64;  // with fewer rows at::linear is as fast

/// Whether oneDNN can compute the product, and is faster at it.
bool is_for_onednn(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const std::array<at::Tensor, 3> all = {x, weight, bias};
  const bool is_plain = std::ranges::all_of(all, [](const at::Tensor& tensor) {
    return !tensor.defined() || (tensor.is_cpu() && tensor.scalar_type() == at::kFloat &&
                                 !torch_private::is_subclass_like(tensor) && !has_tangent(tensor));
  });
  return is_plain && !any_needs_gradient(all) && x.numel() >= kMinOneDnnRows * x.size(-1) &&
         weight.is_contiguous() && !torch_private::autocast_of(at::kCPU).is_enabled &&
         at::globalContext().userEnabledMkldnn();
}

}  // namespace

OneDnnLinear::OneDnnLinear(std::string_view schema)
    : operator_(c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""})) {
  if (operator_ && c10::toString(operator_->schema()) != schema) operator_.reset();
}

at::Tensor OneDnnLinear::operator()(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                    bool apply_gelu) const {
  torch::jit::Stack stack{
      x, weight, bias, apply_gelu ? "gelu" : "none", c10::List<std::optional<at::Scalar>>(), "none"};
  operator_.value().callBoxed(stack);
  return stack.front().toTensor();
}

const OneDnnLinear& onednn_linear() {
  static const OneDnnLinear found;
  return found;
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Pointwise pointwise,
                  const OneDnnLinear& onednn) {
  const bool is_gelu = pointwise == Pointwise::gelu, is_relu = pointwise == Pointwise::relu;
  if (onednn.is_available() && is_for_onednn(x, weight, bias)) {
    const auto product = onednn(x, weight, bias, is_gelu);
    return is_relu ? at::relu(product) : product;  // the relu of oneDNN maps NaN to 0
  }
  const auto product = at::linear(x, weight, bias);
  return is_relu ? at::relu(product) : is_gelu ? at::gelu(product) : product;
}

}  // namespace attend::nn
