#include "autograd/saved_call.h"

#include "core/exact_dtype.h"
#include "core/gradients.h"
#include "core/held.h"
#include "core/mask_node.h"
#include "core/score_mod_node.h"
#include "reference/attention.h"

namespace attend::autograd {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// Returns the call without query, key and value, which autograd saves separately.
AttentionCall without_inputs(AttentionCall call) {
  call.query = call.key = call.value = at::Tensor();
  return call;
}

}  // namespace

void save_call(AutogradContext* context, const AttentionCall& call, variable_list more) {
  auto saved = call.inputs();
  for (auto& tensor : tensors_of(call.mask)) saved.push_back(std::move(tensor));
  context->saved_data["num_call_tensors"] = static_cast<int64_t>(saved.size());
  for (auto& tensor : more) saved.push_back(std::move(tensor));
  context->save_for_backward(saved);
  context->set_materialize_grads(false);
  context->saved_data["call"] = capsule_of(without_inputs(call));
}

c10::SmallVector<bool, 8> wanted_gradients(AutogradContext* context, size_t count) {
  c10::SmallVector<bool, 8> wanted;
  for (size_t n = 0; n < count; ++n) wanted.push_back(context->needs_input_grad(n));
  return wanted;
}

SavedCall saved_call(AutogradContext* context) {
  const auto saved = context->get_saved_variables();
  SavedCall result{.call = held_in<AttentionCall>(context->saved_data["call"]), .more = {}};
  result.call.query = saved[0];
  result.call.key = saved[1];
  result.call.value = saved[2];
  result.more.assign(saved.begin() + context->saved_data["num_call_tensors"].toInt(), saved.end());
  return result;
}

AttentionCall with_grad_leaves(AttentionCall call, bool create_graph) {
  for (auto* tensor : {&call.query, &call.key, &call.value}) *tensor = as_grad_leaf(*tensor, create_graph);
  if (call.score_mod.defined()) {
    auto tensors = call.score_mod_tensors();
    for (auto& tensor : tensors) tensor = as_grad_leaf(tensor, create_graph);
    call.score_mod = with_tensors(call.score_mod, tensors);
  }
  return call;
}

bool is_differentiated(const AttentionCall& call) { return any_needs_gradient(call.inputs()); }

variable_list gradients_of_inputs(const variable_list& inputs, const AttentionWithLse& result,
                                  const variable_list& grads, bool create_graph) {
  const ExactDtype exact;
  return gradients_of(inputs, {result.output, result.logsumexp}, grads, create_graph, /*retain_graph=*/true);
}

bool needs_differentiable_backward(const AttentionCall& call, const variable_list& grads) {
  auto tensors = call.tensors();
  tensors.insert(tensors.end(), grads.begin(), grads.end());
  return attend::needs_differentiable_backward(tensors);
}

variable_list differentiable_backward(const AttentionCall& call, const variable_list& grads) {
  const bool create_graph = at::GradMode::is_enabled();
  const at::AutoGradMode graph(true);
  const auto leaves = with_grad_leaves(call, /*create_graph=*/true);
  return gradients_of_inputs(leaves.inputs(), reference::attention(leaves), grads, create_graph);
}

}  // namespace attend::autograd
