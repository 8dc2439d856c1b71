#pragma once

#include "core/attention_call.h"

namespace attend::cpu {

struct AttentionResult {
  at::Tensor output;
  /// [B, H, Lq], undefined unless the weighting is softmax. logsumexp + logsumexp_low is the logsumexp to
  /// twice the precision, which the backward needs.
  at::Tensor logsumexp, logsumexp_low;
  /// The mask states of cells that the forward found (cpu/mask/cell_states.h). If the list is empty, the
  /// backward finds them again.
  std::vector<at::Tensor> mask_states = {};
};

/// Computes attention tile by tile, so that the scores are never all in memory.
AttentionResult attention(const AttentionCall& call);

struct AttentionGradients {
  at::Tensor query, key, value;  ///< undefined if not wanted
  /// The gradient of each tensor of the score modification; undefined where it is not wanted.
  std::vector<at::Tensor> score_mod;
};

/// Computes the gradients of a call, given the gradients of its output and, if defined, of its logsumexp.
/// wanted[i] states whether the gradient of call.inputs()[i] is needed. Work that serves only gradients that
/// are not wanted is skipped.
AttentionGradients attention_backward(const AttentionCall& call, const AttentionResult& result,
                                      const at::Tensor& grad_output, const at::Tensor& grad_logsumexp,
                                      at::ArrayRef<bool> wanted);

}  // namespace attend::cpu
