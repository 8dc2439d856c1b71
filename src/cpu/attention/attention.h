#pragma once

#include "core/attention_call.h"

namespace attend::cpu {

struct AttentionResult {
  at::Tensor output;
  /// [B, H, Lq], undefined unless the weighting is softmax; and what its rounding left out, for the backward.
  at::Tensor logsumexp, logsumexp_rest;
};

/// The fused kernel: tiles of scores, never all of them.
AttentionResult attention(const AttentionCall& call);

struct AttentionGradients {
  at::Tensor query, key, value;
  std::vector<at::Tensor> score_mod;  ///< for each of the score modification's tensors; undefined: not wanted
};

/// Gradients from those of the output and, where defined, of the logsumexp; `wanted`: for each of the score
/// modification's tensors, whether its gradient is asked for.
AttentionGradients attention_backward(const AttentionCall& call, const AttentionResult& result,
                                      const at::Tensor& grad_output, const at::Tensor& grad_logsumexp,
                                      at::ArrayRef<bool> wanted);

}  // namespace attend::cpu
