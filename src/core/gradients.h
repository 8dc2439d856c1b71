#pragma once

// Queries whether tensors need derivatives, and gradients of values that a backward pass recomputes.

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace attend {

/// Whether the tensor is defined and carries a forward-mode tangent.
bool has_tangent(const at::Tensor& tensor);

/// Whether one of the tensors, of which some may be undefined, carries a forward-mode tangent.
bool any_has_tangent(at::TensorList tensors);

/// Whether the tensor is defined and requires a gradient.
bool requires_grad(const at::Tensor& tensor);

/// Whether an operation on the tensors has to be recorded: gradients are enabled, and one of the tensors, of
/// which some may be undefined, requires a gradient.
bool any_needs_gradient(at::TensorList tensors);

/// Whether the backward pass of a fused operation, which reads the tensors (some may be undefined), has to
/// consist of differentiable operations: it is itself recorded, or one of the tensors carries a forward-mode
/// tangent, or has no elements that a kernel could read, as under vmap.
bool needs_differentiable_backward(at::TensorList tensors);

/// Returns a detached leaf with the same values, so that autograd::grad stops there even if inputs alias or
/// depend on one another. With `create_graph`, returns a view that stays connected to the original graph. A
/// tensor that requires no gradient is returned as it is.
at::Tensor as_grad_leaf(const at::Tensor& tensor, bool create_graph);

/// Returns the gradient of each input, given outputs that were computed from the inputs, and the gradients
/// `grads` of the outputs. The gradient is undefined for an input that requires none or that no output
/// depends on. Outputs with an undefined gradient, and outputs that require no gradient, are skipped. The
/// inputs must be independent of each other; see `as_grad_leaf`.
std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& inputs,
                                     const std::vector<at::Tensor>& outputs,
                                     const std::vector<at::Tensor>& grads, bool create_graph,
                                     bool retain_graph);

/// Differentiable operations that compute outputs from inputs.
using Operation = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

/// Returns the gradient of each input, given the gradients of the outputs, of which some may be undefined. If
/// gradients are enabled, the result can be differentiated again. Tangents of inputs and gradients are kept.
std::vector<at::Tensor> backward_of(const Operation& operation, const std::vector<at::Tensor>& inputs,
                                    const std::vector<at::Tensor>& grads);

/// Returns the gradients of the inputs and of `grads`, given the gradients `grad_grads` of the results of
/// `backward_of`.
std::vector<at::Tensor> double_backward_of(const Operation& operation, const std::vector<at::Tensor>& inputs,
                                           const std::vector<at::Tensor>& grads,
                                           const std::vector<at::Tensor>& grad_grads);

}  // namespace attend
