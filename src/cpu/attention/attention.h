#pragma once

#include "core/attention_call.h"

namespace attend::cpu {

struct AttentionResult {
  at::Tensor output;
  /// [B, H, Lq], undefined unless the weighting is softmax; logsumexp_low is the low-order word, for the
  /// backward.
  at::Tensor logsumexp, logsumexp_low;
};

/// Fused attention: computes tiles of scores and never stores all scores.
AttentionResult attention(const AttentionCall& call);

struct AttentionGradients {
  at::Tensor query, key, value;
  std::vector<at::Tensor>
      score_mod;  ///< of each tensor of the score modification; undefined where not requested
};

/// Gradients of a call from the gradients of its output and, if defined, of its logsumexp. wanted[i]: whether
/// the gradient of tensor i of the score modification is requested.
AttentionGradients attention_backward(const AttentionCall& call, const AttentionResult& result,
                                      const at::Tensor& grad_output, const at::Tensor& grad_logsumexp,
                                      at::ArrayRef<bool> wanted);

}  // namespace attend::cpu
