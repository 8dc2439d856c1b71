#pragma once

#include <ATen/core/Tensor.h>

namespace attend::autograd {

/// A tensor of the same values that does not lead to how they were computed, for a gradient to end at: the
/// one tensor may stand for several inputs, or they may depend on each other. Where a graph of the gradient
/// is asked for, it leads there through itself.
inline at::Tensor begin_of_graph(const at::Tensor& tensor, bool create_graph) {
  if (!tensor.defined() || !tensor.requires_grad()) return tensor;
  return create_graph ? tensor.view_as(tensor) : tensor.detach().requires_grad_();
}

}  // namespace attend::autograd
