#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// The weights softmax(mask(S)), S_ij = sum_a w_a tanh(query_ia + key_ja), in float32 (float64 for float64).
/// `call.query` has only the rows of `shape`, whose other sizes are those of all scores.
at::Tensor additive_attention_weights(const AttentionCall& call, const at::Tensor& score_weight,
                                      const ScoreShape& shape);

/// dropout(weights) V for the same rows, in the query's dtype.
at::Tensor additive_attention(const AttentionCall& call, const at::Tensor& score_weight,
                              const ScoreShape& shape);

}  // namespace attend::reference
