#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/log1p.h>
#include <ATen/ops/silu.h>
#include <attend/nn/linear_attention.h>
#include <attend/position.h>

#include <ostream>

#include "core/checks.h"
#include "core/compute_type.h"
#include "nn/checks.h"
#include "nn/linear_mixer.h"

namespace attend::nn {
namespace {

constexpr auto kRetention = "nn::Retention";

RetentionOptions completed(RetentionOptions options) {
  const int64_t per_head =
      channels_per_head(kRetention, options.embed_dim(), options.num_heads(), options.head_dim() == 0);
  fill_in_width(kRetention, "head_dim", options.head_dim(), per_head);
  fill_in_width(kRetention, "head_v_dim", options.head_v_dim(), 2 * options.head_dim());
  if (options.head_dim() % 2 != 0) {
    checks::fail(kRetention, "head_dim", "an even number", c10::str(options.head_dim()));
  }
  return options;
}

/// log(1 - 2^(-5 - h)), [H] (equation 8)
torch::Tensor log_decays(const RetentionOptions& options, const torch::Tensor& input) {
  const auto type = compute_type(input);
  const auto head = at::arange(options.num_heads(), input.options().dtype(at::kDouble));
  return at::log1p(-at::exp2(-5 - head)).to(type);
}

}  // namespace

RetentionImpl::RetentionImpl(const RetentionOptions& options_) : options(completed(options_)) { reset(); }

void RetentionImpl::reset() {
  const int64_t width = options.embed_dim(), keys = options.num_heads() * options.head_dim(),
                values = options.num_heads() * options.head_v_dim();
  q_proj = register_module("q_proj", make_linear(width, keys));
  k_proj = register_module("k_proj", make_linear(width, keys));
  v_proj = register_module("v_proj", make_linear(width, values));
  g_proj = register_module("g_proj", make_linear(width, values));
  o_proj = register_module("o_proj", make_linear(values, width));
}

void RetentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::Retention(embed_dim=" << options.embed_dim() << ", num_heads=" << options.num_heads()
         << ", head_dim=" << options.head_dim() << ", head_v_dim=" << options.head_v_dim() << ")";
}

torch::Tensor RetentionImpl::forward(const torch::Tensor& input, RecurrentState* state) {
  check_input(kRetention, "input", input, options.embed_dim(), {"input", input}, q_proj->weight);
  check_state(kRetention, state, input, {options.num_heads(), options.head_dim(), options.head_v_dim()});
  const int64_t first = state == nullptr ? 0 : state->length;
  const auto positions = at::arange(first, first + input.size(-2), input.options().dtype(at::kLong));
  const auto query = rotary(in_heads(q_proj(input), options.num_heads()), {}, positions),
             key = rotary(in_heads(k_proj(input), options.num_heads()), {}, positions),
             value = in_heads(v_proj(input), options.num_heads());
  const auto heads = recur(
      query, key, value,
      {.feature_map = FeatureMap::identity, .normalize = false, .log_decay = log_decays(options, query)},
      state);
  const auto normed = at::layer_norm(heads, {options.head_v_dim()}, {}, {}, options.eps());
  return o_proj(at::silu(g_proj(input)) * out_of_heads(normed, input));
}

}  // namespace attend::nn
