#pragma once

// Questions about derivatives that a tensor takes part in, and gradients of what a backward pass recomputes.

#include <ATen/core/Tensor.h>

#include <vector>

namespace attend {

/// Whether the tensor is defined and carries a forward-mode tangent.
bool has_tangent(const at::Tensor& tensor);

/// Whether the tensor is defined and requires a gradient.
bool requires_grad(const at::Tensor& tensor);

/// Whether an operation on the tensors has to be recorded: gradients are enabled, and one of the tensors, of
/// which some may be undefined, requires a gradient.
bool any_needs_gradient(at::TensorList tensors);

/// A detached leaf with the same values, so that autograd::grad stops here even if inputs alias or depend on
/// one another. With `create_graph`, a view that stays connected to the original graph. A tensor that
/// requires no gradient is returned as it is.
at::Tensor as_grad_leaf(const at::Tensor& tensor, bool create_graph);

/// For each input its gradient, given the outputs as functions of the inputs and the gradients of the
/// outputs. Undefined for inputs that require none or that no output depends on. Undefined gradients, and
/// outputs that require no gradient, are skipped. The inputs must be independent: see `as_grad_leaf`.
std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& inputs,
                                     const std::vector<at::Tensor>& outputs,
                                     const std::vector<at::Tensor>& grads, bool create_graph,
                                     bool retain_graph);

}  // namespace attend
