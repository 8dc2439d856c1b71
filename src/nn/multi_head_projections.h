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

// Inputs are [B, L, width] or [L, width], the latter a batch of one.

torch::Tensor project_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query);

/// One product where key and value are the same tensor.
KeyValue project_key_value(const MultiHeadAttentionImpl& module, const torch::Tensor& key,
                           const torch::Tensor& value);

/// One product where all three are the same tensor.
Heads project_all(const MultiHeadAttentionImpl& module, const torch::Tensor& query, const torch::Tensor& key,
                  const torch::Tensor& value);

/// For cosine scores: queries of length min(exp(logit_scale), 100), so that the scores need no other scale.
torch::Tensor scaled_unit_query(const MultiHeadAttentionImpl& module, const torch::Tensor& query);

/// For cosine scores: keys of length 1.
torch::Tensor unit_key(const torch::Tensor& key);

/// Appends the keys and values of add_bias_kv and add_zero_attn, in this order.
void append_extra_keys(const MultiHeadAttentionImpl& module, Heads& heads);

/// [B, H, Lq, D] -> [B, Lq, E], or for a query of two dimensions [Lq, E].
torch::Tensor project_out(const MultiHeadAttentionImpl& module, const torch::Tensor& heads,
                          int64_t query_dim);

}  // namespace attend::nn
