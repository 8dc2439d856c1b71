#pragma once

// What the autograd functions around the implementations of attention share.

#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "core/attention_call.h"

namespace attend::autograd {

/// Saves the call, its inputs and the tensors of its mask, so that a change in place before the backward pass
/// is detected, and further tensors.
void save_call(torch::autograd::AutogradContext* context, const AttentionCall& call,
               std::vector<at::Tensor> more);

/// What `save_call` saved.
struct SavedCall {
  AttentionCall call;
  std::vector<at::Tensor> more;
};
SavedCall saved_call(torch::autograd::AutogradContext* context);

/// Whether the call has to be recorded: gradients are enabled, and one of its inputs requires a gradient.
bool is_differentiated(const AttentionCall& call);

/// The call with its inputs replaced by leaves; see `as_grad_leaf`.
AttentionCall with_grad_leaves(AttentionCall call, bool create_graph);

/// The gradients of the inputs, which are those of a call `with_grad_leaves`, given the results as functions
/// of them and the gradients of the results. Undefined for inputs that require none.
std::vector<at::Tensor> gradients_of_inputs(const std::vector<at::Tensor>& inputs,
                                            const AttentionWithLse& result,
                                            const std::vector<at::Tensor>& grads, bool create_graph);

/// The gradients of the inputs of the call by the operations of the reference, which can be differentiated
/// again.
std::vector<at::Tensor> differentiable_backward(const AttentionCall& call,
                                                const std::vector<at::Tensor>& grads);

}  // namespace attend::autograd
