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
                             const variable_list& grads) {
  c10::SmallVector<bool, 4> wanted;
  for (const auto& tensor : call.score_mod_tensors()) wanted.push_back(tensor.requires_grad());
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
    save_call(context, call, {result.output, result.logsumexp, result.logsumexp_low});
    if (!result.logsumexp.defined()) return {result.output};
    return {result.output, result.logsumexp};
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const auto [call, results] = saved_call(context);
    auto all = at::GradMode::is_enabled() ? differentiable_backward(call, grads)
                                          : fused_backward(call, {results[0], results[1], results[2]}, grads);
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
