#pragma once

#include <attend/attention.h>
#include <attend/nn/multi_head_attention.h>

#include "core/score_shape.h"

namespace attend::nn {

/// The masks and score modifications of a checked call: those of the module, `params.mask`,
/// `params.key_padding_mask` and `params.attn_mask`. `shape` is that of the scores without the keys of
/// add_bias_kv and add_zero_attn, which no mask hides.
struct Masks {
  Masks(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params, const ScoreShape& shape,
        at::ScalarType query_dtype, at::Device device);

  Mask mask;
  ScoreMod score_mod;
};

/// Returns the tensor in a dtype that is valid beside a query of this dtype: unchanged if it has the query's
/// dtype or float32, otherwise converted to the query's dtype.
torch::Tensor beside_query(const torch::Tensor& tensor, at::ScalarType query_dtype);

}  // namespace attend::nn
