#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/silu.h>
#include <attend/nn/retention.h>
#include <attend/positional_encoding.h>

#include <ostream>

#include "core/checks.h"
#include "nn/checks.h"
#include "nn/decay.h"
#include "nn/linear_mixer.h"

namespace attend::nn {
namespace {

constexpr auto kRetention = "nn::Retention";

RetentionOptions resolved(RetentionOptions options) {
  const int64_t per_head =
      channels_per_head(kRetention, options.embed_dim(), options.num_heads(), options.head_dim() == 0);
  resolve_width(kRetention, "head_dim", options.head_dim(), per_head);
  resolve_width(kRetention, "value_head_dim", options.value_head_dim(), 2 * options.head_dim());
  if (options.head_dim() % 2 != 0) {
    checks::fail(kRetention, "head_dim", "an even integer", c10::str(options.head_dim()));
  }
  return options;
}

}  // namespace

RetentionImpl::RetentionImpl(const RetentionOptions& options_) : options(resolved(options_)) { reset(); }

void RetentionImpl::reset() {
  const int64_t width = options.embed_dim(), keys = options.num_heads() * options.head_dim(),
                values = options.num_heads() * options.value_head_dim();
  q_proj = register_module("q_proj", make_linear(width, keys));
  k_proj = register_module("k_proj", make_linear(width, keys));
  v_proj = register_module("v_proj", make_linear(width, values));
  g_proj = register_module("g_proj", make_linear(width, values));
  o_proj = register_module("o_proj", make_linear(values, width));
}

void RetentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::Retention(embed_dim=" << options.embed_dim() << ", num_heads=" << options.num_heads()
         << ", head_dim=" << options.head_dim() << ", value_head_dim=" << options.value_head_dim() << ")";
}

void RetentionImpl::check(const torch::Tensor& input, const RecurrentState* state) const {
  check_projections(kRetention, *this);
  check_input(kRetention, "input", input, options.embed_dim(), {"input", input}, q_proj->weight);
  check_state(kRetention, state, input, {options.num_heads(), options.head_dim(), options.value_head_dim()});
}

torch::Tensor RetentionImpl::forward(const torch::Tensor& input, RecurrentState* state) {
  check(input, state);
  const int64_t num_heads = options.num_heads();
  const int64_t first = state == nullptr ? 0 : state->length;
  const auto positions = at::arange(first, first + input.size(-2), input.options().dtype(at::kLong));
  const auto query = rotary(split_heads(q_proj(input), num_heads), {}, positions),
             key = rotary(split_heads(k_proj(input), num_heads), {}, positions),
             value = split_heads(v_proj(input), num_heads);
  const auto log_decay = retention_log_decay(num_heads, query);
  const auto heads = recurrent_attention(
      query, key, value, {.feature_map = FeatureMap::identity, .normalize = false, .log_decay = log_decay},
      state);
  const auto normed = at::layer_norm(heads, {options.value_head_dim()}, {}, {}, options.eps());
  return o_proj(at::silu(g_proj(input)) * merge_heads(normed, input));
}

}  // namespace attend::nn
