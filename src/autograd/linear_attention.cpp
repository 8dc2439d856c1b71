#include "autograd/linear_attention.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "autograd/saved_call.h"
#include "core/exact_dtype.h"
#include "core/gradients.h"
#include "core/held.h"
#include "core/inputs.h"
#include "core/torch_private.h"
#include "reference/linear_attention.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Replaces the inputs of the call by the first elements of `inputs`, and returns the number of replaced
/// inputs.
size_t set_inputs(LinearAttentionCall& call, const variable_list& inputs) {
  size_t next = 0;
  for (auto* tensor : {&call.query, &call.key, &call.value}) *tensor = inputs[next++];
  for (auto* tensor : {&call.log_decay, &call.beta, &call.initial_state}) {
    if (tensor->defined()) *tensor = inputs[next++];
  }
  return next;
}

/// Returns the call without its inputs, which autograd saves separately. Each defined optional input
/// becomes an empty tensor, as a mark for `set_inputs` to replace it.
LinearAttentionCall without_inputs(LinearAttentionCall call) {
  call.query = call.key = call.value = at::Tensor();
  for (auto* tensor : {&call.log_decay, &call.beta, &call.initial_state}) {
    if (tensor->defined()) *tensor = at::empty({0});
  }
  return call;
}

bool needs_differentiable_linear_backward(const LinearAttentionCall& call, const variable_list& grads) {
  auto tensors = call.inputs();
  tensors.insert(tensors.end(), grads.begin(), grads.end());
  return attend::needs_differentiable_backward(tensors);
}

/// Returns the gradients from differentiating the chunked reference, so that they carry tangents and, if
/// gradients are enabled, can be differentiated again.
variable_list differentiable_linear_backward(LinearAttentionCall call, const variable_list& grads) {
  const ExactDtype exact;
  const bool create_graph = at::GradMode::is_enabled();
  const at::AutoGradMode graph(true);
  auto inputs = call.inputs();
  for (auto& input : inputs) input = as_grad_leaf(input, /*create_graph=*/true);
  set_inputs(call, inputs);
  const auto result = reference::linear_attention_chunked(call);
  return gradients_of(inputs, {result.output, result.final_state}, grads, create_graph,
                      /*retain_graph=*/create_graph);
}

variable_list fused_linear_backward(const LinearAttentionCall& call, const FusedLinearAttention& result,
                                    const variable_list& grads, at::ArrayRef<bool> wanted) {
  const auto found = fused_linear_attention_backward(call, result, grads[0], grads[1], wanted);
  variable_list all = {found.query, found.key, found.value};
  if (call.log_decay.defined()) all.push_back(found.log_decay);
  if (call.beta.defined()) all.push_back(found.beta);
  if (call.initial_state.defined()) all.push_back(found.initial_state);
  return all;
}

struct FusedLinearAttentionFunction : torch::autograd::Function<FusedLinearAttentionFunction> {
  /// `inputs` are call.inputs(), passed separately because autograd records only tensors that are arguments.
  static variable_list forward(AutogradContext* context, at::TensorList inputs,
                               const LinearAttentionCall& call) {
    const auto result = fused_linear_attention(call);
    auto saved = inputs.vec();
    saved.push_back(result.normaliser);
    saved.push_back(result.unrounded);
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    context->saved_data["call"] = capsule_of(without_inputs(call));
    return {result.output, result.final_state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto call = held_in<LinearAttentionCall>(context->saved_data["call"]);
    const size_t next = set_inputs(call, saved);
    auto all = needs_differentiable_linear_backward(call, grads)
                   ? differentiable_linear_backward(call, grads)
                   : fused_linear_backward(call, {{}, {}, saved[next], saved[next + 1]}, grads,
                                           wanted_gradients(context, next));
    all.emplace_back();  // `call` itself has no gradient
    return all;
  }
};

}  // namespace

FusedLinearAttention fused_linear_attention(const LinearAttentionCall& call) {
  return cpu::linear_attention(call, /*for_backward=*/true);
}

FusedLinearAttentionGradients fused_linear_attention_backward(const LinearAttentionCall& call,
                                                              const FusedLinearAttention& result,
                                                              const at::Tensor& grad_output,
                                                              const at::Tensor& grad_final_state,
                                                              at::ArrayRef<bool> wanted) {
  const c10::SmallVector<bool, 8> all(call.inputs().size(), true);
  const auto elements = [](const at::Tensor& grad) { return grad.defined() ? materialized(grad) : grad; };
  return cpu::linear_attention_backward(call, result, elements(grad_output), elements(grad_final_state),
                                        wanted.empty() ? at::ArrayRef<bool>(all) : wanted);
}

LinearAttentionResult linear_attention(const LinearAttentionCall& call) {
  const auto inputs = call.inputs();
  if (!any_needs_gradient(inputs)) {
    const auto result = cpu::linear_attention(call, /*for_backward=*/false);
    return {result.output, result.final_state};
  }
  const auto results = FusedLinearAttentionFunction::apply(at::TensorList(inputs), call);
  return {results[0], results[1]};
}

at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state) {
  auto output = cpu::linear_attention_step(call, state);
  torch_private::bump_version(state);
  return output;
}

}  // namespace attend::autograd
