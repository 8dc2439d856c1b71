#pragma once

#include <attend/attention.h>
#include <attend/nn/multi_head_attention.h>

#include "core/score_shape.h"

namespace attend::nn {

/// The masks and score modifications of a checked call: those of the module, `params.mask`,
/// `params.key_padding_mask` and `params.attn_mask`. `shape`: of the scores, without the keys of add_bias_kv
/// and add_zero_attn, which no mask hides.
struct Masks {
  Masks(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params, const ScoreShape& shape,
        at::ScalarType query_dtype, at::Device device);

  Mask mask;
  ScoreMod score_mod;
};

/// The tensor in a dtype that a query of this dtype may have beside it: its own if that is the query's or
/// float32, else the query's.
torch::Tensor beside_query(const torch::Tensor& tensor, at::ScalarType query_dtype);

}  // namespace attend::nn
