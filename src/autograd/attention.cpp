#include "autograd/attention.h"

#include <ATen/ops/zeros_like.h>

#include "autograd/saved_call.h"
#include "core/inputs.h"

namespace attend::autograd {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor materialized_or_undefined(const at::Tensor& grad) {
  return grad.defined() ? materialized(grad) : grad;
}

variable_list fused_backward(const AttentionCall& call, const FusedAttention& result,
                             const variable_list& grads, at::ArrayRef<bool> wanted) {
  auto gradients =
      fused_attention_backward(call, result, grads[0], grads.size() > 1 ? grads[1] : at::Tensor(), wanted);
  variable_list all = {gradients.query, gradients.key, gradients.value};
  for (auto& gradient : gradients.score_mod) all.push_back(std::move(gradient));
  return all;
}

struct FusedAttentionFunction : torch::autograd::Function<FusedAttentionFunction> {
  /// `inputs` are call.inputs(), passed separately because autograd records only tensors that are arguments.
  static variable_list forward(AutogradContext* context, at::TensorList /*inputs*/,
                               const AttentionCall& call) {
    const auto result = cpu::attention(call);
    variable_list results = {result.output, result.logsumexp, result.logsumexp_low};
    results.insert(results.end(), result.mask_states.begin(), result.mask_states.end());
    save_call(context, call, std::move(results));
    if (!result.logsumexp.defined()) return {result.output};
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto [call, results] = saved_call(context);
    const FusedAttention result{results[0], results[1], results[2], {results.begin() + 3, results.end()}};
    auto all = needs_differentiable_backward(call, grads)
                   ? differentiable_backward(call, grads)
                   : fused_backward(call, result, grads, wanted_gradients(context, call.inputs().size()));
    all.emplace_back();  // `call` itself has no gradient
    return all;
  }
};

}  // namespace

FusedAttention fused_attention(const AttentionCall& call) { return cpu::attention(call); }

FusedAttentionGradients fused_attention_backward(const AttentionCall& call, const FusedAttention& result,
                                                 const at::Tensor& grad_output,
                                                 const at::Tensor& grad_logsumexp,
                                                 at::ArrayRef<bool> wanted) {
  const auto grad = grad_output.defined() ? materialized(grad_output) : at::zeros_like(result.output);
  return cpu::attention_backward(call, result, grad, materialized_or_undefined(grad_logsumexp), wanted);
}

AttentionWithLse attention(const AttentionCall& call) {
  if (!is_differentiated(call)) {
    const auto result = cpu::attention(call);
    return {result.output, result.logsumexp};
  }
  const auto inputs = call.inputs();
  const auto results = FusedAttentionFunction::apply(at::TensorList(inputs), call);
  return {results[0], results.size() > 1 ? results[1] : at::Tensor()};
}

}  // namespace attend::autograd
