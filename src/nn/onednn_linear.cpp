#include "nn/onednn_linear.h"

#include <ATen/Context.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>

#include <algorithm>
#include <array>

#include "core/gradients.h"

namespace attend::nn {
namespace {

constexpr int64_t kFewestRows = 64;  // of fewer a product by MKL is as fast

const std::optional<c10::OperatorHandle>& onednn() {
  static const auto found = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  return found;
}

/// Whether oneDNN can multiply them, and gains by it.
bool is_for_onednn(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const std::array<at::Tensor, 3> all = {x, weight, bias};
  const bool is_plain = std::ranges::all_of(all, [](const at::Tensor& tensor) {
    return !tensor.defined() || (tensor.is_cpu() && tensor.scalar_type() == at::kFloat &&
                                 !at::isTensorSubclassLike(tensor) && !has_tangent(tensor));
  });
  const bool is_differentiated =
      at::GradMode::is_enabled() && std::ranges::any_of(all, [](const at::Tensor& tensor) {
        return tensor.defined() && tensor.requires_grad();
      });
  return is_plain && !is_differentiated && x.numel() >= kFewestRows * x.size(-1) && weight.is_contiguous() &&
         !at::autocast::is_autocast_enabled(at::kCPU) && at::globalContext().userEnabledMkldnn();
}

at::Tensor product_of(const c10::OperatorHandle& onednn, const at::Tensor& x, const at::Tensor& weight,
                      const at::Tensor& bias, bool has_gelu) {
  torch::jit::Stack stack{
      x, weight, bias, has_gelu ? "gelu" : "none", c10::List<std::optional<at::Scalar>>(), "none"};
  onednn.callBoxed(stack);
  return stack.front().toTensor();
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  Pointwise pointwise) {
  const bool is_gelu = pointwise == Pointwise::gelu, is_relu = pointwise == Pointwise::relu;
  if (const auto& fused = onednn(); fused && is_for_onednn(x, weight, bias)) {
    const auto product = product_of(*fused, x, weight, bias, is_gelu);
    return is_relu ? at::relu(product) : product;  // oneDNN's own makes 0 of NaN
  }
  const auto product = at::linear(x, weight, bias);
  return is_relu ? at::relu(product) : is_gelu ? at::gelu(product) : product;
}

}  // namespace attend::nn
