#pragma once

#include <attend/attention.h>
#include <attend/nn/multi_head_attention.h>

#include "core/score_shape.h"

namespace attend::nn {

/// The masks and score modifications of a call: those of the module, `params.mask`, `params.key_padding_mask`
/// and `params.attn_mask`. `shape`: of the scores, without the keys of add_bias_kv and add_zero_attn, which
/// no mask hides. `query_dim`: 2 or 3. Fails if a mask does not fit the shape.
struct Masks {
  Masks(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params, const ScoreShape& shape,
        int64_t query_dim, at::Device device);

  Mask mask;
  ScoreMod score_mod;
};

}  // namespace attend::nn
