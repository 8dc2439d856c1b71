#pragma once

#include "core/attention_call.h"
#include "cpu/attention/attention.h"

namespace attend::autograd {

/// Computes attention by the fused kernel, recorded by autograd. A backward pass with create_graph
/// differentiates the reference instead.
AttentionWithLse attention(const AttentionCall& call);

/// The results of the fused kernel, and what its backward pass reads. `fused_attention` runs the kernel
/// without recording a graph.
using FusedAttention = cpu::AttentionResult;
FusedAttention fused_attention(const AttentionCall& call);

/// The gradients of `fused_attention`, given the gradients of the output and of the logsumexp, either of
/// which may be undefined. `wanted` states for each of call.inputs() whether its gradient is needed; the
/// others are undefined.
using FusedAttentionGradients = cpu::AttentionGradients;
FusedAttentionGradients fused_attention_backward(const AttentionCall& call, const FusedAttention& result,
                                                 const at::Tensor& grad_output,
                                                 const at::Tensor& grad_logsumexp, at::ArrayRef<bool> wanted);

}  // namespace attend::autograd
