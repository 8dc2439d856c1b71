#pragma once

#include "core/linear_attention_call.h"
#include "cpu/linear_attention/linear_attention.h"

namespace attend::autograd {

/// The fused kernels with their gradients. If a graph of the gradients is requested, the chunked form in
/// plain ATen computes them.
LinearAttentionResult linear_attention(const LinearAttentionCall& call);

/// The fused kernels alone, without a graph: their results and what their backward reads.
using FusedLinearAttention = cpu::LinearAttentionOutputs;
FusedLinearAttention fused_linear_attention(const LinearAttentionCall& call);

/// Their gradients, given those of the output and of the final state, either of which may be undefined.
using FusedLinearAttentionGradients = cpu::LinearAttentionGradients;
FusedLinearAttentionGradients fused_linear_attention_backward(const LinearAttentionCall& call,
                                                              const FusedLinearAttention& result,
                                                              const at::Tensor& grad_output,
                                                              const at::Tensor& grad_final_state);

/// The fused kernel for a call of one token, without a graph: returns the output [B, H, 1, Dv] and updates
/// `state`, contiguous [B, H, D, state_width] of compute type, in place. Its version counter increases.
at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state);

}  // namespace attend::autograd
