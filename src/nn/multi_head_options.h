#pragma once

#include <attend/nn/multi_head_attention.h>

#include <iosfwd>

namespace attend::nn {

/// The name of the module in errors.
inline constexpr auto kMultiHeadAttention = "nn::MultiHeadAttention";

/// Checks the options, and replaces every 0 that selects a default by the value of the default.
MultiHeadAttentionOptions completed(MultiHeadAttentionOptions options);

/// Whether queries, keys and values have the same width, so that one parameter holds their projections.
inline bool is_packed(const MultiHeadAttentionOptions& options) {
  return options.kdim() == options.embed_dim() && options.vdim() == options.embed_dim();
}

/// Returns the width of the projected queries, H D.
inline int64_t query_width(const MultiHeadAttentionOptions& options) {
  return options.num_heads() * options.head_dim();
}

/// Returns the width of the projected keys, which is also that of the projected values, Hkv D.
inline int64_t kv_width(const MultiHeadAttentionOptions& options) {
  return options.num_kv_heads() * options.head_dim();
}

/// Returns the number of keys that add_bias_kv and add_zero_attn append.
inline int64_t num_extra_keys(const MultiHeadAttentionOptions& options) {
  return (options.add_bias_kv() ? 1 : 0) + (options.add_zero_attn() ? 1 : 0);
}

/// Prints the options. Those after head_dim and bias are printed only if they differ from their defaults.
void print(std::ostream& stream, const MultiHeadAttentionOptions& options);

}  // namespace attend::nn
