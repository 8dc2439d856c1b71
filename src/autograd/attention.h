#pragma once

#include "core/attention_call.h"
#include "cpu/attention/attention.h"

namespace attend::autograd {

/// The fused kernel with its gradients. If a graph of the gradients is requested, the reference computes
/// them.
AttentionWithLse attention(const AttentionCall& call);

/// The fused kernel alone, without a graph: its results and what its backward reads.
using FusedAttention = cpu::AttentionResult;
FusedAttention fused_attention(const AttentionCall& call);

/// Its gradients, given those of the output and of the logsumexp, either of which may be undefined.
/// `wanted`: for each tensor of the score modification, whether its gradient is needed.
using FusedAttentionGradients = cpu::AttentionGradients;
FusedAttentionGradients fused_attention_backward(const AttentionCall& call, const FusedAttention& result,
                                                 const at::Tensor& grad_output,
                                                 const at::Tensor& grad_logsumexp, at::ArrayRef<bool> wanted);

}  // namespace attend::autograd
