#include "autograd/chunked_reference.h"

#include <ATen/ops/cat.h>

#include <algorithm>

#include "autograd/saved_call.h"
#include "core/compute_type.h"
#include "reference/attention.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// 128 MiB of float32.
constexpr int64_t kMostScores = int64_t{1} << 25;

/// Of one query in every head and batch element.
int64_t scores_per_row(const AttentionCall& call) {
  return call.query.size(0) * call.query.size(1) * call.key.size(2);
}

template <typename Action>
void for_each_chunk(const AttentionCall& call, Action action) {
  const int64_t queries = call.query.size(2);
  const int64_t rows = std::max<int64_t>(1, kMostScores / scores_per_row(call));
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

/// Of a gradient of the output or of the logsumexp, in the type of sums.
at::Tensor rows_of(const at::Tensor& gradient, int64_t first, int64_t rows) {
  return gradient.defined() ? gradient.narrow(2, first, rows).to(compute_type(gradient)) : gradient;
}

/// A leaf of the type of sums, so that a chunk's gradients of it are not rounded either.
at::Tensor widened(const at::Tensor& leaf) {
  return leaf.detach().to(compute_type(leaf)).requires_grad_(leaf.requires_grad());
}

/// Computes each chunk again, with its graph.
variable_list backward_in_chunks(AttentionCall call, const variable_list& grads) {
  const auto inputs = inputs_of(call);
  call = with_grad_leaves(call, /*create_graph=*/false);
  call.query = widened(call.query);
  call.key = widened(call.key);
  call.value = widened(call.value);
  variable_list all(inputs.size());
  for_each_chunk(call, [&](int64_t first, int64_t rows) {
    const at::AutoGradMode graph(true);
    variable_list of_rows;
    for (const auto& grad : grads) of_rows.push_back(rows_of(grad, first, rows));
    const auto found =
        gradients_of_inputs(inputs_of(call), reference::attention_rows(call, first, rows), of_rows,
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

struct ChunkedReference : torch::autograd::Function<ChunkedReference> {
  /// The tensors of the call are arguments of their own because autograd looks for inputs among the
  /// arguments.
  static variable_list forward(AutogradContext* context, const at::Tensor& /*query*/,
                               const at::Tensor& /*key*/, const at::Tensor& /*value*/,
                               at::TensorList /*score_mod*/, const AttentionCall& call) {
    save_call(context, call, {});
    const auto result = forward_in_chunks(call);
    if (!call.wants_logsumexp) return {result.output};
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto call = saved_call(context).call;
    auto all =
        at::GradMode::is_enabled() ? differentiable_backward(call, grads) : backward_in_chunks(call, grads);
    all.emplace_back();  // `call` itself has no gradient
    return all;
  }
};

}  // namespace

bool has_many_scores(const AttentionCall& call) {
  return call.query.size(2) > 1 && scores_per_row(call) > kMostScores / call.query.size(2);
}

AttentionWithLse reference_in_chunks(const AttentionCall& call) {
  if (!is_differentiated(call)) return forward_in_chunks(call);
  const auto tensors = score_mod_tensors(call);
  const auto results =
      ChunkedReference::apply(call.query, call.key, call.value, at::TensorList(tensors), call);
  return {results[0], results.size() > 1 ? results[1] : at::Tensor()};
}

}  // namespace attend::autograd
