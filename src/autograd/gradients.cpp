#include "autograd/gradients.h"

#include <torch/csrc/autograd/autograd.h>

namespace attend::autograd {

using torch::autograd::variable_list;

namespace {

bool requires_grad(const at::Tensor& input) { return input.defined() && input.requires_grad(); }

}  // namespace

at::Tensor begin_of_graph(const at::Tensor& tensor, bool create_graph) {
  if (!requires_grad(tensor)) return tensor;
  return create_graph ? tensor.view_as(tensor) : tensor.detach().requires_grad_();
}

variable_list gradients_of(const variable_list& inputs, const variable_list& outputs,
                           const variable_list& grads, bool create_graph, bool retain_graph) {
  variable_list differentiated, of_outputs, output_grads;
  for (const auto& input : inputs) {
    if (requires_grad(input)) differentiated.push_back(input);
  }
  for (size_t n = 0; n < grads.size(); ++n) {
    if (!grads[n].defined() || !outputs[n].requires_grad()) continue;
    of_outputs.push_back(outputs[n]);
    output_grads.push_back(grads[n]);
  }
  if (of_outputs.empty()) return variable_list(inputs.size());
  const auto found = torch::autograd::grad(of_outputs, differentiated, output_grads, retain_graph,
                                           create_graph, /*allow_unused=*/true);
  variable_list all;
  auto next = found.begin();
  for (const auto& input : inputs) all.push_back(requires_grad(input) ? *next++ : at::Tensor());
  return all;
}

}  // namespace attend::autograd
