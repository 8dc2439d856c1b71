#include "autograd/saved_call.h"

#include <c10/core/impl/LocalDispatchKeySet.h>

#include "autograd/gradients.h"
#include "core/mask_node.h"
#include "core/score_mod_node.h"
#include "reference/attention.h"

namespace attend::autograd {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// A call as a value of the autograd graph; without its inputs, which the graph saves itself.
struct CallHolder : torch::CustomClassHolder {
  explicit CallHolder(AttentionCall held) : call(std::move(held)) {
    call.query = call.key = call.value = at::Tensor();
  }
  AttentionCall call;
};

}  // namespace

void save_call(AutogradContext* context, const AttentionCall& call, variable_list more) {
  auto saved = inputs_of(call);
  for (auto& tensor : tensors_of(call.mask)) saved.push_back(std::move(tensor));
  context->saved_data["of_call"] = static_cast<int64_t>(saved.size());
  for (auto& tensor : more) saved.push_back(std::move(tensor));
  context->save_for_backward(saved);
  context->set_materialize_grads(false);
  context->saved_data["call"] = c10::IValue::make_capsule(c10::make_intrusive<CallHolder>(call));
}

SavedCall saved_call(AutogradContext* context) {
  const auto saved = context->get_saved_variables();
  const auto holder = c10::static_intrusive_pointer_cast<CallHolder>(context->saved_data["call"].toCapsule());
  SavedCall result{holder->call, {}};
  result.call.query = saved[0];
  result.call.key = saved[1];
  result.call.value = saved[2];
  result.more.assign(saved.begin() + context->saved_data["of_call"].toInt(), saved.end());
  return result;
}

variable_list score_mod_tensors(const AttentionCall& call) {
  return call.score_mod.defined() ? call.score_mod.node()->tensors() : variable_list();
}

variable_list inputs_of(const AttentionCall& call) {
  variable_list inputs = {call.query, call.key, call.value};
  for (auto& tensor : score_mod_tensors(call)) inputs.push_back(std::move(tensor));
  return inputs;
}

AttentionCall at_begin_of_graph(AttentionCall call, bool create_graph) {
  for (auto* tensor : {&call.query, &call.key, &call.value}) *tensor = begin_of_graph(*tensor, create_graph);
  if (call.score_mod.defined()) {
    auto tensors = score_mod_tensors(call);
    for (auto& tensor : tensors) tensor = begin_of_graph(tensor, create_graph);
    call.score_mod = ScoreMod(call.score_mod.node()->with_tensors(tensors));
  }
  return call;
}

bool is_differentiated(const AttentionCall& call) {
  if (!at::GradMode::is_enabled()) return false;
  if (call.query.requires_grad() || call.key.requires_grad() || call.value.requires_grad()) return true;
  for (const auto& tensor : score_mod_tensors(call)) {
    if (tensor.requires_grad()) return true;
  }
  return false;
}

variable_list gradients_of(const variable_list& inputs, const AttentionWithLse& result,
                           const variable_list& grads, bool create_graph) {
  // As the forward pass: autocast would round what is summed in float32.
  const c10::impl::ExcludeDispatchKeyGuard exact(c10::autocast_dispatch_keyset);
  return gradients_of(inputs, {result.output, result.logsumexp}, grads, create_graph, /*retain_graph=*/true);
}

variable_list differentiable_backward(const AttentionCall& call, const variable_list& grads) {
  const auto again = at_begin_of_graph(call, /*create_graph=*/true);
  return gradients_of(inputs_of(again), reference::attention(again), grads, /*create_graph=*/true);
}

}  // namespace attend::autograd
