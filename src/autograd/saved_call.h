#pragma once

// Helpers of the autograd functions of attention.

#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "core/attention_call.h"

namespace attend::autograd {

/// Saves the call and the tensors `more` for the backward pass. The inputs of the call and the tensors of its
/// mask are saved as autograd variables, so that autograd detects if they are changed in place before the
/// backward pass.
void save_call(torch::autograd::AutogradContext* context, const AttentionCall& call,
               std::vector<at::Tensor> more);

/// Returns, for each of the first `count` tensors that were arguments of the function, whether the running
/// backward pass needs its gradient.
c10::SmallVector<bool, 8> wanted_gradients(torch::autograd::AutogradContext* context, size_t count);

/// The values that `save_call` saved.
struct SavedCall {
  AttentionCall call;
  std::vector<at::Tensor> more;
};
SavedCall saved_call(torch::autograd::AutogradContext* context);

/// Whether the call has to be recorded: gradients are enabled, and one of its inputs requires a gradient.
bool is_differentiated(const AttentionCall& call);

/// Returns the call with its inputs replaced by leaves; see `as_grad_leaf`.
AttentionCall with_grad_leaves(AttentionCall call, bool create_graph);

/// Returns the gradients of the inputs of a call from `with_grad_leaves`, given its results and their
/// gradients; undefined for inputs that require none.
std::vector<at::Tensor> gradients_of_inputs(const std::vector<at::Tensor>& inputs,
                                            const AttentionWithLse& result,
                                            const std::vector<at::Tensor>& grads, bool create_graph);

/// Whether the backward pass of the call, given the gradients of its results, has to consist of
/// differentiable operations; see core/gradients.h.
bool needs_differentiable_backward(const AttentionCall& call, const std::vector<at::Tensor>& grads);

/// Returns the gradients of the inputs of the call from differentiating the reference, so that they carry
/// tangents and, if gradients are enabled, can be differentiated again.
std::vector<at::Tensor> differentiable_backward(const AttentionCall& call,
                                                const std::vector<at::Tensor>& grads);

}  // namespace attend::autograd
