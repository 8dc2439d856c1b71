#include "reference/softmax.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

#include "core/dtypes.h"
#include "core/gradients.h"
#include "core/torch_private.h"

namespace attend::reference {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// at::softmax over the last dimension, whose gradient also keeps a tangent of the gradient that it is given.
/// ATen's operation for the gradient has forward mode only where Python has registered its decomposition.
struct Softmax : torch::autograd::Function<Softmax> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& scores) {
    auto weights = at::softmax(scores, -1);
    context->save_for_backward({weights});
    return weights;
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto weights = context->get_saved_variables()[0];
    const auto& grad = grads[0];
    if (!has_tangent(grad) && !has_tangent(weights)) {
      return {at::_softmax_backward_data(grad, weights, -1, weights.scalar_type())};
    }
    const auto products = grad * weights;
    return {products - weights * products.sum(-1, /*keepdim=*/true)};
  }
};

at::Tensor row_softmax(const at::Tensor& scores) {
  const bool is_plain = any_needs_gradient(scores) && !has_tangent(scores) &&
                        !torch_private::is_subclass_like(scores) && !torch_private::has_transforms();
  return is_plain ? Softmax::apply(scores) : at::softmax(scores, -1);
}

}  // namespace

at::Tensor rows_with_visible_key(const at::Tensor& scores) {
  return scores.ne(kMinusInfinity).any(-1, /*keepdim=*/true);
}

at::Tensor softmax(const at::Tensor& scores) {
  const auto is_visible = rows_with_visible_key(scores);
  return at::where(is_visible, row_softmax(at::where(is_visible, scores, 0.0)), 0.0);
}

}  // namespace attend::reference
