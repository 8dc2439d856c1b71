#pragma once

// Gradients of what is computed again in a backward pass.

#include <ATen/core/Tensor.h>

#include <vector>

namespace attend::autograd {

/// A tensor of the same values that does not lead to how they were computed, for a gradient to end at: the
/// one tensor may stand for several inputs, or they may depend on each other. Where a graph of the gradient
/// is asked for, it leads there through itself.
at::Tensor begin_of_graph(const at::Tensor& tensor, bool create_graph);

/// The gradients of those inputs that require one, given the outputs as functions of them and the outputs'
/// gradients; undefined for the others, and where no output depends on the input. Undefined gradients, and
/// outputs that need none, are passed over. The inputs must not lead to each other: see `begin_of_graph`.
std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& inputs,
                                     const std::vector<at::Tensor>& outputs,
                                     const std::vector<at::Tensor>& grads, bool create_graph,
                                     bool retain_graph);

}  // namespace attend::autograd
