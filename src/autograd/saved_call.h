#pragma once

// What the autograd functions around the implementations have in common.

#include <torch/csrc/autograd/custom_function.h>

#include <vector>

#include "core/attention_call.h"

namespace attend::autograd {

/// Saves the call, its inputs and its mask's tensors, so that a change in place is noticed, and more tensors.
void save_call(torch::autograd::AutogradContext* context, const AttentionCall& call,
               std::vector<at::Tensor> more);

struct SavedCall {
  AttentionCall call;
  std::vector<at::Tensor> more;
};

SavedCall saved_call(torch::autograd::AutogradContext* context);

std::vector<at::Tensor> score_mod_tensors(const AttentionCall& call);

/// Query, key, value and the score modification's tensors.
std::vector<at::Tensor> inputs_of(const AttentionCall& call);

/// Whether a gradient may be asked for.
bool is_differentiated(const AttentionCall& call);

/// The call with its inputs replaced by tensors that a gradient ends at; see `begin_of_graph`.
AttentionCall at_begin_of_graph(AttentionCall call, bool create_graph);

/// The gradients of those inputs that require one, given the results as functions of them; undefined for the
/// others. The inputs must not lead to each other: those of a call `at_begin_of_graph`.
std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor>& inputs, const AttentionWithLse& result,
                                     const std::vector<at::Tensor>& grads, bool create_graph);

/// The gradients as functions of everything, by the operations of the reference.
std::vector<at::Tensor> differentiable_backward(const AttentionCall& call,
                                                const std::vector<at::Tensor>& grads);

}  // namespace attend::autograd
