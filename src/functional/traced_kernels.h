#pragma once

// The fused kernels on checked calls, without autograd: the forward pass, which also returns everything that
// the backward pass reads, and the backward pass; and the reference, from which further derivatives come. The
// operators for Python call these functions, since the forward and the backward pass are operators of their
// own there. All other code calls `attention` and `linear_attention`.

#include <vector>

#include "autograd/attention.h"
#include "autograd/linear_attention.h"

namespace attend {

/// Computes the results of a call on the CPU, and the values that its backward pass reads.
autograd::FusedAttention fused_attention(const AttentionCall& call);

/// Computes the gradients of query, key, value and the tensors of the score modification, given the gradients
/// of the output and of the logsumexp, either of which may be undefined. `wanted` states for each of
/// call.inputs() whether its gradient is needed; the others are undefined.
autograd::FusedAttentionGradients fused_attention_backward(const AttentionCall& call,
                                                           const autograd::FusedAttention& result,
                                                           const at::Tensor& grad_output,
                                                           const at::Tensor& grad_logsumexp,
                                                           at::ArrayRef<bool> wanted);

/// Computes the results of a call by the reference, in ATen's differentiable operations.
AttentionWithLse differentiable_attention(const AttentionCall& call);

/// Computes the results of `linear_attention` for a call on the CPU, and the values that its backward pass
/// reads. If `is_causal` is false, all queries read the final state.
autograd::FusedLinearAttention fused_linear_attention(const LinearAttentionCall& call, bool is_causal);

/// Computes the results of `linear_attention` for a call by the chunked reference, in ATen's differentiable
/// operations.
LinearAttentionResult differentiable_linear_attention(const LinearAttentionCall& call, bool is_causal);

/// Computes the gradients of the defined tensors of the call; the other gradients are undefined. `result` is
/// the result of `fused_linear_attention`. Either of `grad_output` and `grad_final_state` may be undefined.
autograd::FusedLinearAttentionGradients fused_linear_attention_backward(
    const LinearAttentionCall& call, bool is_causal, const autograd::FusedLinearAttention& result,
    const at::Tensor& grad_output, const at::Tensor& grad_final_state);

/// Returns the first of the two causal calls that a call without causality consists of: it has no queries and
/// computes the state after the last key.
LinearAttentionCall state_call(LinearAttentionCall call);

/// Returns the second of these calls: it has no keys, and its queries read `state`.
LinearAttentionCall read_call(LinearAttentionCall call, const at::Tensor& state);

}  // namespace attend
