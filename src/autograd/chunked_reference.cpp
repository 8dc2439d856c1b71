#include "autograd/chunked_reference.h"

#include <ATen/ops/cat.h>

#include <algorithm>

#include "autograd/saved_call.h"
#include "core/dtypes.h"
#include "core/gradients.h"
#include "core/score_mod_node.h"
#include "core/torch_private.h"
#include "reference/attention.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The largest number of scores in one chunk: 128 MiB in float32.
constexpr int64_t kMaxScores = int64_t{1} << 25;

/// Returns the number of scores of one query position, summed over all heads and batch elements.
int64_t scores_per_row(const AttentionCall& call) {
  return call.query.size(0) * call.query.size(1) * call.key.size(2);
}

/// Whether the scores exceed one chunk and the call can be split into chunks.
bool needs_chunks(const AttentionCall& call) {
  if (call.query.size(2) <= 1 || scores_per_row(call) <= kMaxScores / call.query.size(2)) return false;
  return std::ranges::none_of(call.tensors(), [](const at::Tensor& tensor) {
    return has_tangent(tensor) || torch_private::is_subclass_like(tensor);
  });
}

/// Calls action(first, rows) for each chunk of queries.
template <typename Action>
void for_each_chunk(const AttentionCall& call, Action action) {
  const int64_t queries = call.query.size(2);
  const int64_t rows = std::max<int64_t>(1, kMaxScores / scores_per_row(call));
  for (int64_t first = 0; first < queries; first += rows) action(first, std::min(rows, queries - first));
}

AttentionWithLse forward_in_chunks(const AttentionCall& call) {
  variable_list outputs, logsumexps;
  for_each_chunk(call, [&](int64_t first, int64_t rows) {
    const auto part = reference::attention_rows(call, first, rows);
    outputs.push_back(part.output);
    if (call.wants_logsumexp) logsumexps.push_back(part.logsumexp);
  });
  return {at::cat(outputs, 2), call.wants_logsumexp ? at::cat(logsumexps, 2) : at::Tensor()};
}

/// Returns the rows [first, first + rows) of a gradient of the output or of the logsumexp, in compute type.
at::Tensor gradient_rows(const at::Tensor& gradient, int64_t first, int64_t rows) {
  return gradient.defined() ? gradient.narrow(2, first, rows).to(compute_type(gradient)) : gradient;
}

/// Returns a leaf with the same values in compute type, so that the gradients of the chunks are added before
/// they are rounded.
at::Tensor widened_leaf(const at::Tensor& leaf) {
  return leaf.detach().to(compute_type(leaf)).requires_grad_(leaf.requires_grad());
}

/// Returns the call with inputs that require no gradient where it is not wanted.
AttentionCall without_unwanted(AttentionCall call, at::ArrayRef<bool> wanted) {
  size_t next = 0;
  const auto detach_unwanted = [&](at::Tensor& tensor) {
    if (!wanted[next++]) tensor = tensor.detach();
  };
  for (auto* tensor : {&call.query, &call.key, &call.value}) detach_unwanted(*tensor);
  if (call.score_mod.defined()) {
    auto tensors = call.score_mod_tensors();
    for (auto& tensor : tensors) detach_unwanted(tensor);
    call.score_mod = with_tensors(call.score_mod, tensors);
  }
  return call;
}

/// Recomputes each chunk while recording its graph, and accumulates the wanted gradients.
variable_list backward_in_chunks(AttentionCall call, const variable_list& grads, at::ArrayRef<bool> wanted) {
  call = without_unwanted(std::move(call), wanted);
  const auto inputs = call.inputs();
  call = with_grad_leaves(call, /*create_graph=*/false);
  call.query = widened_leaf(call.query);
  call.key = widened_leaf(call.key);
  call.value = widened_leaf(call.value);
  variable_list all(inputs.size());
  for_each_chunk(call, [&](int64_t first, int64_t rows) {
    const at::AutoGradMode graph(true);
    variable_list chunk_grads;
    for (const auto& grad : grads) chunk_grads.push_back(gradient_rows(grad, first, rows));
    const auto found =
        gradients_of_inputs(call.inputs(), reference::attention_rows(call, first, rows), chunk_grads,
                            /*create_graph=*/false);
    for (size_t n = 0; n < all.size(); ++n) {
      if (!found[n].defined()) continue;
      all[n] = all[n].defined() ? all[n].add_(found[n])
                                : found[n].to(compute_type(found[n]), /*non_blocking=*/false, /*copy=*/true);
    }
  });
  for (size_t n = 0; n < all.size(); ++n) {
    if (all[n].defined()) all[n] = all[n].to(inputs[n].scalar_type());
  }
  return all;
}

struct ChunkedReferenceFunction : torch::autograd::Function<ChunkedReferenceFunction> {
  /// `inputs` are call.inputs(), passed separately because autograd records only tensors that are arguments.
  static variable_list forward(AutogradContext* context, at::TensorList /*inputs*/,
                               const AttentionCall& call) {
    save_call(context, call, {});
    const auto result = forward_in_chunks(call);
    if (!call.wants_logsumexp) return {result.output};
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call = saved_call(context).call;
    auto all = at::GradMode::is_enabled()
                   ? differentiable_backward(call, grads)
                   : backward_in_chunks(call, grads, wanted_gradients(context, call.inputs().size()));
    all.emplace_back();  // `call` itself has no gradient
    return all;
  }
};

}  // namespace

AttentionWithLse chunked_reference(const AttentionCall& call) {
  if (!needs_chunks(call)) return reference::attention(call);
  if (!is_differentiated(call)) return forward_in_chunks(call);
  const auto inputs = call.inputs();
  const auto results = ChunkedReferenceFunction::apply(at::TensorList(inputs), call);
  return {results[0], results.size() > 1 ? results[1] : at::Tensor()};
}

}  // namespace attend::autograd
