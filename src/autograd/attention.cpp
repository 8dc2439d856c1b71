#include "autograd/attention.h"

#include <ATen/ops/zeros_like.h>

#include "autograd/saved_call.h"
#include "core/inputs.h"
#include "cpu/attention/attention.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

variable_list fused_backward(const AttentionCall& call, const cpu::AttentionResult& result,
                             const variable_list& grads) {
  const auto grad_output = grads[0].defined() ? materialized(grads[0]) : at::zeros_like(result.output);
  const bool has_grad_logsumexp = grads.size() > 1 && grads[1].defined();
  c10::SmallVector<bool, 4> wanted;
  for (const auto& tensor : score_mod_tensors(call)) wanted.push_back(tensor.requires_grad());
  auto gradients = cpu::attention_backward(
      call, result, grad_output, has_grad_logsumexp ? materialized(grads[1]) : at::Tensor(), wanted);
  variable_list all = {gradients.query, gradients.key, gradients.value};
  for (auto& gradient : gradients.score_mod) all.push_back(std::move(gradient));
  return all;
}

struct FusedAttention : torch::autograd::Function<FusedAttention> {
  /// The tensors of the call are named so that their gradients are asked for.
  static variable_list forward(AutogradContext* context, const at::Tensor& /*query*/,
                               const at::Tensor& /*key*/, const at::Tensor& /*value*/,
                               at::TensorList /*score_mod*/, const AttentionCall& call) {
    const auto result = cpu::attention(call);
    save_call(context, call, {result.output, result.logsumexp, result.logsumexp_rest});
    if (!result.logsumexp.defined()) return {result.output};
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto [call, results] = saved_call(context);
    auto all = at::GradMode::is_enabled() ? differentiable_backward(call, grads)
                                          : fused_backward(call, {results[0], results[1], results[2]}, grads);
    all.emplace_back();  // of the call itself
    return all;
  }
};

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
