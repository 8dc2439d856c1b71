#include "attention.h"

#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "../cpu/attention.h"
#include "../reference/attention.h"
#include "../score_mod_node.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// A call as a value of the autograd graph; without its inputs, which the graph saves itself.
struct SavedCall : torch::CustomClassHolder {
  explicit SavedCall(AttentionCall saved) : call(std::move(saved)) {
    call.query = call.key = call.value = at::Tensor();
  }
  AttentionCall call;
};

std::vector<at::Tensor> score_mod_tensors(const AttentionCall& call) {
  return call.score_mod.defined() ? call.score_mod.node()->tensors() : std::vector<at::Tensor>();
}

/// The gradients as functions of everything, by the operations of the reference.
variable_list differentiable_backward(const AttentionCall& call, const variable_list& grads) {
  variable_list inputs = {call.query, call.key, call.value};
  for (const auto& tensor : score_mod_tensors(call)) inputs.push_back(tensor);
  variable_list differentiated, outputs, output_grads;
  for (const auto& input : inputs) {
    if (input.requires_grad()) differentiated.push_back(input);
  }
  const auto result = call.weighting == Weighting::softmax ? reference::attention_with_lse(call)
                                                           : AttentionWithLse{reference::attention(call), {}};
  if (grads[0].defined()) {
    outputs.push_back(result.output);
    output_grads.push_back(grads[0]);
  }
  if (grads.size() > 1 && grads[1].defined()) {
    outputs.push_back(result.logsumexp);
    output_grads.push_back(grads[1]);
  }
  auto found = torch::autograd::grad(outputs, differentiated, output_grads, /*retain_graph=*/true,
                                     /*create_graph=*/true, /*allow_unused=*/true);
  variable_list all;
  auto next = found.begin();
  for (const auto& input : inputs) all.push_back(input.requires_grad() ? *next++ : at::Tensor());
  return all;
}

variable_list fused_backward(const AttentionCall& call, const cpu::AttentionResult& result,
                             const variable_list& grads) {
  const auto grad_output = grads[0].defined() ? grads[0] : at::zeros_like(result.output);
  auto gradients =
      cpu::attention_backward(call, result, grad_output, grads.size() > 1 ? grads[1] : at::Tensor());
  variable_list all = {gradients.query, gradients.key, gradients.value};
  for (auto& gradient : gradients.score_mod) all.push_back(std::move(gradient));
  return all;
}

struct FusedAttention : torch::autograd::Function<FusedAttention> {
  static variable_list forward(AutogradContext* context, const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, at::TensorList tensors, const AttentionCall& call) {
    const auto result = cpu::attention(call);
    variable_list saved = {query, key, value, result.output, result.logsumexp, result.logsumexp_rest};
    saved.insert(saved.end(), tensors.begin(), tensors.end());  // so that a change in place is noticed
    context->save_for_backward(saved);
    context->set_materialize_grads(false);
    context->saved_data["call"] = c10::IValue::make_capsule(c10::make_intrusive<SavedCall>(call));
    if (!result.logsumexp.defined()) return {result.output};
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto saved = context->get_saved_variables();
    const auto holder =
        c10::static_intrusive_pointer_cast<SavedCall>(context->saved_data["call"].toCapsule());
    AttentionCall call = holder->call;
    call.query = saved[0];
    call.key = saved[1];
    call.value = saved[2];
    auto all = at::GradMode::is_enabled() ? differentiable_backward(call, grads)
                                          : fused_backward(call, {saved[3], saved[4], saved[5]}, grads);
    all.emplace_back();  // of the call itself
    return all;
  }
};

bool is_differentiated(const AttentionCall& call) {
  if (!at::GradMode::is_enabled()) return false;
  if (call.query.requires_grad() || call.key.requires_grad() || call.value.requires_grad()) return true;
  for (const auto& tensor : score_mod_tensors(call)) {
    if (tensor.requires_grad()) return true;
  }
  return false;
}

}  // namespace

AttentionWithLse attention(const AttentionCall& call) {
  if (!is_differentiated(call)) {
    const auto result = cpu::attention(call);
    return {result.output, result.logsumexp};
  }
  const auto tensors = score_mod_tensors(call);
  const auto results = FusedAttention::apply(call.query, call.key, call.value, at::TensorList(tensors), call);
  return {results[0], results.size() > 1 ? results[1] : at::Tensor()};
}

}  // namespace attend::autograd
