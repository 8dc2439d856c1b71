#pragma once

#include <attend/nn/multi_head_attention.h>

#include <iosfwd>

namespace attend::nn {

/// The name of the module in errors.
inline constexpr auto kMultiHeadAttention = "nn::MultiHeadAttention";

/// Checks the options, and replaces every 0 that selects a default by its value.
MultiHeadAttentionOptions completed(MultiHeadAttentionOptions options);

/// Whether queries, keys and values have one width, so that their projections are one parameter.
inline bool is_packed(const MultiHeadAttentionOptions& options) {
  return options.kdim() == options.embed_dim() && options.vdim() == options.embed_dim();
}

/// The width of the projected queries, H D.
inline int64_t query_width(const MultiHeadAttentionOptions& options) {
  return options.num_heads() * options.head_dim();
}

/// The width of the projected keys, and that of the values, Hkv D.
inline int64_t kv_width(const MultiHeadAttentionOptions& options) {
  return options.num_kv_heads() * options.head_dim();
}

/// The number of keys that follow those of the call: those of add_bias_kv and add_zero_attn.
inline int64_t num_extra_keys(const MultiHeadAttentionOptions& options) {
  return (options.add_bias_kv() ? 1 : 0) + (options.add_zero_attn() ? 1 : 0);
}

/// Prints the options, those after head_dim and bias only where they differ from their defaults.
void print(std::ostream& stream, const MultiHeadAttentionOptions& options);

}  // namespace attend::nn
