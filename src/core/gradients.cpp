#include "core/gradients.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "core/torch_private.h"

namespace attend {

using torch::autograd::variable_list;

namespace {

/// Views that require gradients, with the tangents of the tensors; undefined for undefined tensors.
variable_list differentiable_views(const variable_list& tensors) {
  variable_list views;
  for (const auto& tensor : tensors) {
    views.push_back(tensor.defined() ? tensor.view_as(tensor) : tensor);
    // Not `requires_grad_`, which is refused under the transforms of torch.func.
    if (tensor.defined() && !views.back().requires_grad()) views.back().set_requires_grad(true);
  }
  return views;
}

}  // namespace

bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

bool any_has_tangent(at::TensorList tensors) { return std::ranges::any_of(tensors, has_tangent); }

bool requires_grad(const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }

bool any_needs_gradient(at::TensorList tensors) {
  return at::GradMode::is_enabled() && std::any_of(tensors.begin(), tensors.end(), requires_grad);
}

bool needs_differentiable_backward(at::TensorList tensors) {
  return at::GradMode::is_enabled() || std::ranges::any_of(tensors, [](const at::Tensor& tensor) {
           return has_tangent(tensor) || torch_private::is_subclass_like(tensor);
         });
}

at::Tensor as_grad_leaf(const at::Tensor& tensor, bool create_graph) {
  if (!requires_grad(tensor)) return tensor;
  return create_graph ? tensor.view_as(tensor) : tensor.detach().requires_grad_();
}

variable_list gradients_of(const variable_list& inputs, const variable_list& outputs,
                           const variable_list& grads, bool create_graph, bool retain_graph) {
  variable_list differentiated, differentiated_outputs, output_grads;
  for (const auto& input : inputs) {
    if (requires_grad(input)) differentiated.push_back(input);
  }
  for (size_t n = 0; n < grads.size(); ++n) {
    if (!grads[n].defined() || !outputs[n].requires_grad()) continue;
    differentiated_outputs.push_back(outputs[n]);
    output_grads.push_back(grads[n]);
  }
  if (differentiated_outputs.empty()) return variable_list(inputs.size());
  const auto found = torch::autograd::grad(differentiated_outputs, differentiated, output_grads, retain_graph,
                                           create_graph, /*allow_unused=*/true);
  variable_list all;
  auto next = found.begin();
  for (const auto& input : inputs) all.push_back(requires_grad(input) ? *next++ : at::Tensor());
  return all;
}

variable_list backward_of(const Operation& operation, const variable_list& inputs,
                          const variable_list& grads) {
  const bool create_graph = at::GradMode::is_enabled();
  const at::AutoGradMode graph(true);
  const auto views = differentiable_views(inputs);
  return gradients_of(views, operation(views), grads, create_graph, /*retain_graph=*/create_graph);
}

variable_list double_backward_of(const Operation& operation, const variable_list& inputs,
                                 const variable_list& grads, const variable_list& grad_grads) {
  const bool create_graph = at::GradMode::is_enabled();
  const at::AutoGradMode graph(true);
  const torch_private::GradLevel level;
  auto views = differentiable_views(level.wrap(inputs));
  const auto views_of_grads = differentiable_views(level.wrap(grads));
  const auto first = gradients_of(views, operation(views), views_of_grads, /*create_graph=*/true,
                                  /*retain_graph=*/true);
  views.insert(views.end(), views_of_grads.begin(), views_of_grads.end());
  return level.unwrap(gradients_of(views, first, level.wrap(grad_grads), create_graph || level.is_active(),
                                   /*retain_graph=*/create_graph));
}

}  // namespace attend
