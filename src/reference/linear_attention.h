#pragma once

#include "core/linear_attention_call.h"

namespace attend::reference {

/// phi(x) in compute type.
at::Tensor feature_map(const at::Tensor& tensor, FeatureMap map);

/// What a query reads of a state: S^T (scale * q), over z q where normalize is set, 0 where that is 0. query
/// [B, H, L, D] after the feature map, read [B, H, L, state_width] = q^T S.
at::Tensor normalized(const at::Tensor& read, double scale, bool normalize);

/// The inputs of a call in compute type, as the recurrence takes them: after the feature map, the heads of
/// key and value repeated, a column of ones beside the value where normalize is set, nothing of keys past
/// their lengths (their decay is 1), and T = max(Lq, Lk) steps with the last query at the last key.
struct LinearInputs {
  at::Tensor query, key, value;  ///< [B, H, T, D], the same, [B, H, T, state_width]
  at::Tensor log_decay;          ///< undefined or [B, H, T, 1 or D]
  at::Tensor beta;               ///< undefined or [B, H, T, 1]
  at::Tensor state;              ///< [B, H, D, state_width]
};
LinearInputs linear_inputs(const LinearAttentionCall& call);

/// Step by step: the definition.
LinearAttentionResult linear_attention_recurrent(const LinearAttentionCall& call);

/// In chunks: products of matrices within a chunk, and a state from one to the next (Yang 2023, section 4;
/// Yang 2024, section 3.2).
LinearAttentionResult linear_attention_chunked(const LinearAttentionCall& call);

}  // namespace attend::reference
