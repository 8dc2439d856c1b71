#pragma once

#include "core/linear_attention_call.h"

namespace attend::cpu {

/// The results of a call.
struct LinearAttentionOutputs {
  at::Tensor output, final_state;
  /// For the backward, undefined unless normalize: the normaliser [B, H, Lq], and the output before rounding
  /// to its dtype.
  at::Tensor normaliser, unrounded;
};

/// Fused linear attention in chunks.
LinearAttentionOutputs linear_attention(const LinearAttentionCall& call, bool for_backward);

/// The output of a call of one token, [B, H, 1, Dv]. Updates the state in place, which is contiguous and has
/// the type of the computation.
at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state);

/// The gradients of the call's inputs; undefined for undefined inputs.
struct LinearAttentionGradients {
  at::Tensor query, key, value, log_decay, beta, initial_state;
};

/// Gradients of a call from those of its output and of its final state, either of which may be undefined.
LinearAttentionGradients linear_attention_backward(const LinearAttentionCall& call,
                                                   const LinearAttentionOutputs& outputs,
                                                   const at::Tensor& grad_output,
                                                   const at::Tensor& grad_final_state);

}  // namespace attend::cpu
