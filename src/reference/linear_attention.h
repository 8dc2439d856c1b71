#pragma once

#include "core/linear_attention_call.h"

namespace attend::reference {

/// Applies the feature map phi to the tensor, in compute type.
at::Tensor feature_map(const at::Tensor& tensor, FeatureMap map);

/// Returns the output [B, H, L, Dv] of the queries, given read = q^T S [B, H, L, state_width] with q after
/// the feature map: scale * read. With `normalize`, the last column of `read` is the normaliser, by which the
/// other columns are divided; the output is 0 where the normaliser is so small that it counts as 0.
at::Tensor normalized(const at::Tensor& read, double scale, bool normalize);

/// Returns the output of a call without causality, whose queries all read `state`, in the query's dtype.
at::Tensor read_state(const LinearAttentionCall& call, const at::Tensor& state);

/// The inputs of the recurrence, in compute type. The feature map is applied to queries and keys, the heads
/// of key and value are repeated, and with `normalize` a column of ones is appended to the value. Keys and
/// values at or past their key length are zero, and their decay is 1. There are T = max(Lq, Lk) steps, of
/// which the last belongs to the last query and the last key; the shorter sequence of the two is padded with
/// zeros in front.
struct LinearInputs {
  at::Tensor query;      ///< [B, H, T, D]
  at::Tensor key;        ///< [B, H, T, D]
  at::Tensor value;      ///< [B, H, T, state_width]
  at::Tensor log_decay;  ///< undefined or [B, H, T, 1 or D]
  at::Tensor beta;       ///< undefined or [B, H, T, 1]
  at::Tensor state;      ///< [B, H, D, state_width]
};
LinearInputs linear_inputs(const LinearAttentionCall& call);

/// Computes linear attention step by step, by the recurrence that defines it.
LinearAttentionResult linear_attention_recurrent(const LinearAttentionCall& call);

/// Computes linear attention by matrix products within chunks of steps and a state that is passed from one
/// chunk to the next (Yang 2023, section 4; Yang 2024, section 3.2).
LinearAttentionResult linear_attention_chunked(const LinearAttentionCall& call);

}  // namespace attend::reference
