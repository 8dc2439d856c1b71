#pragma once

#include "core/linear_attention_call.h"

namespace attend::reference {

/// The feature map phi applied to the tensor, in compute type.
at::Tensor feature_map(const at::Tensor& tensor, FeatureMap map);

/// The output of queries, [B, H, L, Dv], given read = q^T S, [B, H, L, state_width], with q after the feature
/// map: scale * read, divided by z q if `normalize` is set, and 0 if z q is 0.
at::Tensor normalized(const at::Tensor& read, double scale, bool normalize);

/// The inputs of the recurrence, in compute type: queries and keys after the feature map, the heads of key
/// and value repeated, a column of ones beside the value if `normalize` is set, zeros for keys at or past
/// their length, whose decay is 1, and T = max(Lq, Lk) steps with the last query at the last key.
struct LinearInputs {
  at::Tensor query;      ///< [B, H, T, D]
  at::Tensor key;        ///< [B, H, T, D]
  at::Tensor value;      ///< [B, H, T, state_width]
  at::Tensor log_decay;  ///< undefined or [B, H, T, 1 or D]
  at::Tensor beta;       ///< undefined or [B, H, T, 1]
  at::Tensor state;      ///< [B, H, D, state_width]
};
LinearInputs linear_inputs(const LinearAttentionCall& call);

/// The definition: one step after the other.
LinearAttentionResult linear_attention_recurrent(const LinearAttentionCall& call);

/// Matrix products within chunks of steps, and a state from one chunk to the next (Yang 2023, section 4; Yang
/// 2024, section 3.2).
LinearAttentionResult linear_attention_chunked(const LinearAttentionCall& call);

}  // namespace attend::reference
