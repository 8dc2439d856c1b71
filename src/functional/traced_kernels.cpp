#include "functional/traced_kernels.h"

#include <ATen/TensorOperators.h>

#include "core/exact_dtype.h"
#include "reference/attention.h"
#include "reference/linear_attention.h"

namespace attend {

autograd::FusedAttention fused_attention(const AttentionCall& call) {
  return autograd::fused_attention(call);
}

autograd::FusedAttentionGradients fused_attention_backward(const AttentionCall& call,
                                                           const autograd::FusedAttention& result,
                                                           const at::Tensor& grad_output,
                                                           const at::Tensor& grad_logsumexp,
                                                           at::ArrayRef<bool> wanted) {
  return autograd::fused_attention_backward(call, result, grad_output, grad_logsumexp, wanted);
}

AttentionWithLse differentiable_attention(const AttentionCall& call) { return reference::attention(call); }

LinearAttentionCall state_call(LinearAttentionCall call) {
  call.query = call.query.slice(2, 0, 0);
  return call;
}

LinearAttentionCall read_call(LinearAttentionCall call, const at::Tensor& state) {
  call.key = call.key.slice(2, 0, 0);
  call.value = call.value.slice(2, 0, 0);
  call.log_decay = call.beta = call.key_lengths = at::Tensor();
  call.initial_state = state;
  return call;
}

autograd::FusedLinearAttention fused_linear_attention(const LinearAttentionCall& call, bool is_causal) {
  if (is_causal) return autograd::fused_linear_attention(call);
  const auto state = autograd::fused_linear_attention(state_call(call)).final_state;
  auto result = autograd::fused_linear_attention(read_call(call, state));
  result.final_state = state;
  return result;
}

LinearAttentionResult differentiable_linear_attention(const LinearAttentionCall& call, bool is_causal) {
  const ExactDtype exact;
  if (is_causal) return reference::linear_attention_chunked(call);
  const auto state = reference::linear_attention_chunked(state_call(call)).final_state;
  return {reference::read_state(call, state), state};
}

autograd::FusedLinearAttentionGradients fused_linear_attention_backward(
    const LinearAttentionCall& call, bool is_causal, const autograd::FusedLinearAttention& result,
    const at::Tensor& grad_output, const at::Tensor& grad_final_state) {
  if (is_causal) {
    return autograd::fused_linear_attention_backward(call, result, grad_output, grad_final_state);
  }
  const auto read = autograd::fused_linear_attention_backward(read_call(call, result.final_state), result,
                                                              grad_output, at::Tensor());
  const auto grad_state =
      grad_final_state.defined() ? grad_final_state + read.initial_state : read.initial_state;
  const auto without_queries = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.slice(2, 0, 0) : tensor;
  };
  auto gradients = autograd::fused_linear_attention_backward(
      state_call(call),
      {{}, result.final_state, without_queries(result.normaliser), without_queries(result.unrounded)},
      at::Tensor(), grad_state);
  gradients.query = read.query;
  return gradients;
}

}  // namespace attend
