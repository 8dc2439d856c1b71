#pragma once

#include "core/linear_attention_call.h"

namespace attend::cpu {

/// The results of `linear_attention`.
struct LinearAttentionOutputs {
  at::Tensor output, final_state;
  /// Values for the backward: the normaliser [B, H, Lq], and the output before rounding to its dtype.
  /// Undefined unless `for_backward` is true and the call is normalised.
  at::Tensor normaliser, unrounded;
};

/// Computes linear attention in chunks with the fused kernels.
LinearAttentionOutputs linear_attention(const LinearAttentionCall& call, bool for_backward);

/// Computes a call of one token. Returns the output [B, H, 1, Dv], and updates `state` in place, which must
/// be contiguous and of compute type.
at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state);

/// The gradients of the inputs of a call; undefined for undefined inputs and where not wanted.
struct LinearAttentionGradients {
  at::Tensor query, key, value, log_decay, beta, initial_state;
};

/// Computes the gradients of the inputs of a call, given the gradients of its output and of its final state,
/// either of which may be undefined. wanted[i] states whether the gradient of call.inputs()[i] is needed.
/// Work that serves only gradients that are not wanted is skipped.
LinearAttentionGradients linear_attention_backward(const LinearAttentionCall& call,
                                                   const LinearAttentionOutputs& outputs,
                                                   const at::Tensor& grad_output,
                                                   const at::Tensor& grad_final_state,
                                                   at::ArrayRef<bool> wanted);

}  // namespace attend::cpu
