#pragma once

#include "core/linear_attention_call.h"

namespace attend::cpu {

struct LinearAttentionOutputs {
  at::Tensor output, final_state;
  /// For the backward, undefined unless normalize: [B, H, Lq], and the output before it is rounded.
  at::Tensor normaliser, unrounded;
};

/// The fused kernels, in chunks.
LinearAttentionOutputs linear_attention(const LinearAttentionCall& call, bool for_backward);

/// The output of a call of one token, [B, H, 1, Dv]; changes the state, contiguous and of compute type, in
/// place.
at::Tensor linear_attention_step(const LinearAttentionCall& call, const at::Tensor& state);

/// In the order of the call's inputs; undefined for inputs that are.
struct LinearAttentionGradients {
  at::Tensor query, key, value, log_decay, beta, initial_state;
};

/// Gradients from those of the output and of the final state, either of which may be undefined.
LinearAttentionGradients linear_attention_backward(const LinearAttentionCall& call,
                                                   const LinearAttentionOutputs& outputs,
                                                   const at::Tensor& grad_output,
                                                   const at::Tensor& grad_final_state);

}  // namespace attend::cpu
