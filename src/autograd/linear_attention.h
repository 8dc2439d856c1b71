#pragma once

#include "core/linear_attention_call.h"
#include "cpu/linear_attention/linear_attention.h"

namespace attend::autograd {

/// Computes linear attention by the fused kernels, recorded by autograd. A backward pass with create_graph
/// differentiates the chunked reference instead.
LinearAttentionResult linear_attention(const LinearAttentionCall& call);

/// The results of the fused kernels, and what their backward pass reads. `fused_linear_attention` runs the
/// kernels without recording a graph.
using FusedLinearAttention = cpu::LinearAttentionOutputs;
FusedLinearAttention fused_linear_attention(const LinearAttentionCall& call);

/// The gradients of `fused_linear_attention`, given the gradients of the output and of the final state,
/// either of which may be undefined. `wanted` states for each of call.inputs() whether its gradient is
/// needed; the others are undefined. If it is empty, all are needed.
using FusedLinearAttentionGradients = cpu::LinearAttentionGradients;
FusedLinearAttentionGradients fused_linear_attention_backward(const LinearAttentionCall& call,
                                                              const FusedLinearAttention& result,
                                                              const at::Tensor& grad_output,
                                                              const at::Tensor& grad_final_state,
                                                              at::ArrayRef<bool> wanted = {});

/// Computes one token with the fused kernel, without recording a graph. Returns the output [B, H, 1, Dv] and
/// updates `state`, contiguous [B, H, D, state_width] of compute type, in place. The version counter of
/// `state` is incremented.
at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state);

}  // namespace attend::autograd
