#include "core/gradients.h"

#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

namespace attend {

using torch::autograd::variable_list;

bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

bool requires_grad(const at::Tensor& tensor) { return tensor.defined() && tensor.requires_grad(); }

bool any_needs_gradient(at::TensorList tensors) {
  return at::GradMode::is_enabled() && std::any_of(tensors.begin(), tensors.end(), requires_grad);
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

}  // namespace attend
