#pragma once

#include <attend/nn/multi_head_attention.h>

#include "core/score_shape.h"

namespace attend::nn {

/// The inputs of a call in the layout of the options. An undefined key is the query, an undefined value the
/// key.
struct AttentionInputs {
  AttentionInputs(const torch::Tensor& given_query, const torch::Tensor& given_key,
                  const torch::Tensor& given_value)
      : query(given_query),
        key(given_key.defined() ? given_key : given_query),
        value(given_value.defined() ? given_value : key) {}

  const torch::Tensor& query;
  const torch::Tensor& key;
  const torch::Tensor& value;
};

/// Fails where the call is wrong. After it, nothing that the arguments can cause fails.
void check_call(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
                const MultiHeadAttentionParams& params);

/// Fails where the call of `append` is wrong. After it, nothing that the arguments can cause fails.
void check_append_call(const MultiHeadAttentionImpl& module, const KVCache& cache, const torch::Tensor& key,
                       const torch::Tensor& value, const torch::Tensor& lengths);

/// Fails unless a cache of this dtype can serve the module.
void check_cache_dtype(const MultiHeadAttentionImpl& module, const char* argument, at::ScalarType dtype);

/// Fails unless the mask is one of torch.nn for the keys of an attention with scores of this shape: that of
/// the argument `key_padding_mask`.
void check_key_padding_mask(const MultiHeadAttentionImpl& module, const torch::Tensor& mask,
                            const ScoreShape& shape, int64_t query_dim, at::ScalarType dtype);

/// The sizes of the scores of a checked call, without the keys of add_bias_kv and add_zero_attn. With a
/// cache, those before it is appended to.
ScoreShape score_shape(const MultiHeadAttentionOptions& options, const AttentionInputs& inputs,
                       const MultiHeadAttentionParams& params);

/// The dtype of the scores' query: the cache's, or the projected one.
at::ScalarType query_dtype(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params);

inline bool appends_to_cache(const MultiHeadAttentionParams& params) {
  return params.cache != nullptr && params.update_cache;
}

inline bool only_reads_cache(const MultiHeadAttentionParams& params) {
  return params.cache != nullptr && !params.update_cache;
}

}  // namespace attend::nn
