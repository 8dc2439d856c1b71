#include "autograd/linear_attention.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "autograd/gradients.h"
#include "core/inputs.h"
#include "cpu/linear_attention/linear_attention.h"
#include "reference/linear_attention.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The inputs that gradients are asked of.
variable_list differentiable_inputs(const LinearAttentionCall& call) {
  variable_list inputs = {call.query, call.key, call.value};
  for (const auto& tensor : {call.log_decay, call.beta, call.initial_state}) {
    if (tensor.defined()) inputs.push_back(tensor);
  }
  return inputs;
}

/// Puts them back, and tells how many there are.
size_t set_inputs(LinearAttentionCall& call, const variable_list& inputs) {
  size_t next = 0;
  for (auto* tensor : {&call.query, &call.key, &call.value}) *tensor = inputs[next++];
  for (auto* tensor : {&call.log_decay, &call.beta, &call.initial_state}) {
    if (tensor->defined()) *tensor = inputs[next++];
  }
  return next;
}

/// A call as a value of the autograd graph; without its inputs, which the graph saves itself. In the place of
/// those that need not be there stands something that is defined where they are.
struct LinearCallHolder : torch::CustomClassHolder {
  explicit LinearCallHolder(LinearAttentionCall held) : call(std::move(held)) {
    call.query = call.key = call.value = at::Tensor();
    for (auto* tensor : {&call.log_decay, &call.beta, &call.initial_state}) {
      if (tensor->defined()) *tensor = at::empty({0});
    }
  }
  LinearAttentionCall call;
};

bool any_requires_grad(const LinearAttentionCall& call) {
  if (!at::GradMode::is_enabled()) return false;
  for (const auto& input : differentiable_inputs(call)) {
    if (input.requires_grad()) return true;
  }
  return false;
}

/// The gradients as functions of everything, by the operations of the chunked form.
variable_list recorded_backward(LinearAttentionCall call, const variable_list& grads) {
  auto inputs = differentiable_inputs(call);
  for (auto& input : inputs) input = begin_of_graph(input, /*create_graph=*/true);
  set_inputs(call, inputs);
  const auto result = reference::linear_attention_chunked(call);
  return gradients_of(inputs, {result.output, result.final_state}, grads, /*create_graph=*/true,
                      /*retain_graph=*/true);
}

variable_list fused_backward(const LinearAttentionCall& call, const cpu::LinearAttentionOutputs& outputs,
                             const variable_list& grads) {
  const auto values = [](const at::Tensor& grad) { return grad.defined() ? materialized(grad) : grad; };
  const auto found = cpu::linear_attention_backward(call, outputs, values(grads[0]), values(grads[1]));
  variable_list all = {found.query, found.key, found.value};
  for (const auto& gradient : {found.log_decay, found.beta, found.initial_state}) {
    if (gradient.defined()) all.push_back(gradient);
  }
  return all;
}

struct FusedLinearAttention : torch::autograd::Function<FusedLinearAttention> {
  /// The tensors of the call are named so that their gradients are asked for.
  static variable_list forward(AutogradContext* context, at::TensorList /*inputs*/,
                               const LinearAttentionCall& call) {
    const auto outputs = cpu::linear_attention(call, /*for_backward=*/true);
    auto saved = differentiable_inputs(call);
    saved.push_back(outputs.normaliser);
    saved.push_back(outputs.unrounded);
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    context->saved_data["call"] = c10::IValue::make_capsule(c10::make_intrusive<LinearCallHolder>(call));
    return {outputs.output, outputs.final_state};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    auto call =
        c10::static_intrusive_pointer_cast<LinearCallHolder>(context->saved_data["call"].toCapsule())->call;
    const size_t next = set_inputs(call, saved);
    auto all = at::GradMode::is_enabled()
                   ? recorded_backward(call, grads)
                   : fused_backward(call, {{}, {}, saved[next], saved[next + 1]}, grads);
    all.emplace_back();  // of the call itself
    return all;
  }
};

}  // namespace

LinearAttentionResult linear_attention(const LinearAttentionCall& call) {
  if (!any_requires_grad(call)) {
    const auto outputs = cpu::linear_attention(call, /*for_backward=*/false);
    return {outputs.output, outputs.final_state};
  }
  const auto inputs = differentiable_inputs(call);
  const auto results = FusedLinearAttention::apply(at::TensorList(inputs), call);
  return {results[0], results[1]};
}

}  // namespace attend::autograd
