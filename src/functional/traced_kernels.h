#pragma once

// The fused kernels on checked calls, without a graph: the forward pass with everything that the backward
// pass reads, and the backward pass. For the operators that a tracer sees as one step; everything else calls
// `attention` and `linear_attention`.

#include <vector>

#include "autograd/attention.h"
#include "autograd/linear_attention.h"

namespace attend {

/// The results of a call on the CPU, and what its backward pass reads.
autograd::FusedAttention fused_attention(const AttentionCall& call);

/// The gradients of query, key, value and the tensors of the score modification, given those of the output
/// and of the logsumexp, either of which may be undefined. `wanted`: for each tensor of the score
/// modification, whether its gradient is needed.
autograd::FusedAttentionGradients fused_attention_backward(const AttentionCall& call,
                                                           const autograd::FusedAttention& result,
                                                           const at::Tensor& grad_output,
                                                           const at::Tensor& grad_logsumexp,
                                                           at::ArrayRef<bool> wanted);

/// The same gradients by the operations of the reference, which can be differentiated again; undefined for
/// tensors that require none. `grads`: of the output and of the logsumexp.
std::vector<at::Tensor> attention_backward_with_graph(const AttentionCall& call,
                                                      const std::vector<at::Tensor>& grads);

/// The results of `linear_attention` for a call on the CPU, and what its backward pass reads. A call that is
/// not causal is one whose queries all read the final state.
autograd::FusedLinearAttention fused_linear_attention(const LinearAttentionCall& call, bool is_causal);

/// The gradients of the tensors of the call, undefined for those that are undefined, given the gradients of
/// the output and of the final state, either of which may be undefined. `result` is that of
/// `fused_linear_attention`.
autograd::FusedLinearAttentionGradients fused_linear_attention_backward(
    const LinearAttentionCall& call, bool is_causal, const autograd::FusedLinearAttention& result,
    const at::Tensor& grad_output, const at::Tensor& grad_final_state);

/// A call that is not causal in two steps, each of which the kernels serve as a causal one: the state after
/// the last key, by a call without queries, ...
LinearAttentionCall state_call(LinearAttentionCall call);

/// ... and the queries that read this state, by a call without keys.
LinearAttentionCall read_call(LinearAttentionCall call, const at::Tensor& state);

}  // namespace attend
