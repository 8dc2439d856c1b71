#pragma once

#include <attend/nn/multi_head_attention.h>

namespace attend::nn {

/// The arguments of `attention`: query [B, H, Lq, D], key and value [B, Hkv, Lk, D].
struct Heads {
  torch::Tensor query, key, value;
};

/// Projected keys and values [B, Hkv, Lk, D].
struct KeyValue {
  torch::Tensor key, value;
};

// The inputs of these functions are [B, L, width], or [L, width], which is a batch of one.

torch::Tensor project_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query);

/// Projects key and value, by one product if they are the same tensor.
KeyValue project_key_value(const MultiHeadAttentionImpl& module, const torch::Tensor& key,
                           const torch::Tensor& value);

/// Projects query, key and value, by one product if they are the same tensor.
Heads project_all(const MultiHeadAttentionImpl& module, const torch::Tensor& query, const torch::Tensor& key,
                  const torch::Tensor& value);

/// Scales queries to length min(exp(logit_scale), 100), for cosine scores, which then need no other scale.
torch::Tensor scaled_unit_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query);

/// Scales keys to length 1, for cosine scores.
torch::Tensor unit_key(const torch::Tensor& key);

/// Appends the keys and values of add_bias_kv and add_zero_attn, in this order.
void append_extra_keys(const MultiHeadAttentionImpl& module, Heads& heads);

/// Concatenates the heads [B, H, Lq, D] and projects them to [B, Lq, E], or to [Lq, E] for a query of two
/// dimensions.
torch::Tensor project_out(const MultiHeadAttentionImpl& module, const torch::Tensor& heads,
                          int64_t query_dim);

}  // namespace attend::nn
