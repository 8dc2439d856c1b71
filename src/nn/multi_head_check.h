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

/// Fails if an argument of the call is wrong. After this check, no argument can make the call fail.
void check_call(const MultiHeadAttentionImpl& module, const AttentionInputs& inputs,
                const MultiHeadAttentionParams& params);

/// Fails if an argument of `append` is wrong. After this check, no argument can make the call fail.
void check_append_call(const MultiHeadAttentionImpl& module, const KVCache& cache, const torch::Tensor& key,
                       const torch::Tensor& value, const torch::Tensor& lengths);

/// Fails unless the module can use a cache of this dtype.
void check_cache_dtype(const MultiHeadAttentionImpl& module, const char* argument, at::ScalarType dtype);

/// Fails unless the mask, the argument `key_padding_mask`, is a mask in the convention of torch.nn for the
/// keys of scores of this shape.
void check_key_padding_mask(const MultiHeadAttentionImpl& module, const torch::Tensor& mask,
                            const ScoreShape& shape, int64_t query_dim, at::ScalarType dtype);

/// Returns the sizes of the scores of a checked call, without the keys of add_bias_kv and add_zero_attn. Must
/// be called before keys are appended to the cache.
ScoreShape score_shape(const MultiHeadAttentionOptions& options, const AttentionInputs& inputs,
                       const MultiHeadAttentionParams& params);

/// Returns the dtype of the query in `attention`: that of the cache, or without a cache that of the projected
/// query.
at::ScalarType query_dtype(const MultiHeadAttentionImpl& module, const MultiHeadAttentionParams& params);

inline bool appends_to_cache(const MultiHeadAttentionParams& params) {
  return params.cache != nullptr && params.update_cache;
}

inline bool only_reads_cache(const MultiHeadAttentionParams& params) {
  return params.cache != nullptr && !params.update_cache;
}

}  // namespace attend::nn
