#include "nn/multi_head_options.h"

#include <attend/score_mod.h>

#include <ostream>

#include "core/checks.h"
#include "core/error_context.h"
#include "nn/checks.h"

namespace attend::nn {
namespace {

using checks::fail;

void check_at_least(const char* name, int64_t value, int64_t least) {
  if (value < least) fail(kMultiHeadAttention, name, c10::str("at least ", least), c10::str(value));
}

void set_default(int64_t& value, int64_t default_value) {
  if (value == 0) value = default_value;
}

void complete_sizes(MultiHeadAttentionOptions& options) {
  check_at_least("embed_dim", options.embed_dim(), 1);
  check_at_least("num_heads", options.num_heads(), 1);
  set_default(options.num_kv_heads(), options.num_heads());
  check_at_least("num_kv_heads", options.num_kv_heads(), 1);
  if (options.num_heads() % options.num_kv_heads() != 0) {
    fail(kMultiHeadAttention, "num_kv_heads", c10::str("a divisor of num_heads, ", options.num_heads()),
         c10::str(options.num_kv_heads()));
  }
  set_default(options.kdim(), options.embed_dim());
  set_default(options.vdim(), options.embed_dim());
  check_at_least("kdim", options.kdim(), 1);
  check_at_least("vdim", options.vdim(), 1);
  if (options.head_dim() == 0 && options.embed_dim() % options.num_heads() != 0) {
    fail(kMultiHeadAttention, "num_heads",
         c10::str("a divisor of the width ", options.embed_dim(), ", unless head_dim is set"),
         c10::str(options.num_heads()));
  }
  set_default(options.head_dim(), options.embed_dim() / options.num_heads());
  check_at_least("head_dim", options.head_dim(), 1);
}

void check_positions(const MultiHeadAttentionOptions& options) {
  check_at_least("window.left", options.window().left, -1);
  check_at_least("window.right", options.window().right, -1);
  if (const auto& buckets = options.relative_bias()) {
    checks::in_function(kMultiHeadAttention,
                        {{"count", "relative_bias.count"}, {"max_distance", "relative_bias.max_distance"}},
                        [&] { relative_bucket(0, *buckets); });
  }
  const auto& rotary = options.rotary();
  if (!rotary) return;
  if (rotary->dims == 0 && options.head_dim() % 2 != 0) {
    fail(kMultiHeadAttention, "head_dim", "an even integer with rotary", c10::str(options.head_dim()));
  }
  checks::in_function(kMultiHeadAttention, {}, [&] { rotary_frequencies(options.head_dim(), *rotary); });
}

/// An extra key has no position, from which ALiBi and relative biases are computed, and a key of zeros can't
/// be scaled to length 1.
void check_extra_keys(const MultiHeadAttentionOptions& options) {
  if (num_extra_keys(options) == 0) return;
  const auto* const name = options.add_bias_kv() ? "add_bias_kv" : "add_zero_attn";
  const auto refuse = [&](const char* other, bool is_set) {
    if (is_set) fail(kMultiHeadAttention, name, c10::str("false with ", other), "true");
  };
  refuse("alibi", options.alibi());
  refuse("relative_bias", options.relative_bias().has_value());
  refuse("cosine_similarity", options.cosine_similarity());
}

}  // namespace

MultiHeadAttentionOptions completed(MultiHeadAttentionOptions options) {
  complete_sizes(options);
  check_positions(options);
  check_extra_keys(options);
  check_probability(kMultiHeadAttention, "dropout", options.dropout());
  checks::in_function(kMultiHeadAttention, {{"cap", "softcap"}}, [&] {
    if (options.softcap() != 0) softcap(options.softcap());
  });
  return options;
}

void print(std::ostream& stream, const MultiHeadAttentionOptions& options) {
  stream << "embed_dim=" << options.embed_dim() << ", num_heads=" << options.num_heads()
         << ", num_kv_heads=" << options.num_kv_heads() << ", head_dim=" << options.head_dim()
         << ", bias=" << (options.bias() ? "true" : "false");
  if (options.kdim() != options.embed_dim()) stream << ", kdim=" << options.kdim();
  if (options.vdim() != options.embed_dim()) stream << ", vdim=" << options.vdim();
  if (options.dropout() != 0) stream << ", dropout=" << options.dropout();
  if (!options.batch_first()) stream << ", batch_first=false";
  if (options.add_bias_kv()) stream << ", add_bias_kv=true";
  if (options.add_zero_attn()) stream << ", add_zero_attn=true";
  if (options.cosine_similarity()) stream << ", cosine_similarity=true";
  if (options.rotary()) stream << ", rotary=true";
  if (options.alibi()) stream << ", alibi=true";
  const auto& window = options.window();
  if (window.left >= 0 || window.right >= 0)
    stream << ", window=[" << window.left << ", " << window.right << "]";
  if (options.softcap() != 0) stream << ", softcap=" << options.softcap();
  if (options.relative_bias()) stream << ", relative_bias=true";
  if (options.sinks()) stream << ", sinks=true";
  if (options.is_causal()) stream << ", is_causal=true";
}

}  // namespace attend::nn
