#pragma once

#include "core/attention_call.h"

namespace attend::reference {

/// Returns the weights softmax(mask(S)), S_ij = sum_a w_a tanh(query_ia + key_ja), in float32 (float64 for
/// float64). `shape` states which rows of the scores are computed; `call.query` has only these rows.
at::Tensor additive_attention_weights(const AttentionCall& call, const at::Tensor& score_weight,
                                      const ScoreShape& shape);

/// Returns dropout(weights) V for the rows of `shape`, in the query's dtype.
at::Tensor additive_attention(const AttentionCall& call, const at::Tensor& score_weight,
                              const ScoreShape& shape);

}  // namespace attend::reference
