#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/silu.h>
#include <attend/nn/gated_linear_attention.h>

#include <algorithm>
#include <ostream>

#include "core/checks.h"
#include "nn/checks.h"
#include "nn/decay.h"
#include "nn/linear_mixer.h"
#include "nn/rms_norm.h"

namespace attend::nn {
namespace {

constexpr auto kGatedLinearAttention = "nn::GatedLinearAttention";

GatedLinearAttentionOptions resolved(GatedLinearAttentionOptions options) {
  const int64_t per_head = channels_per_head(kGatedLinearAttention, options.embed_dim(), options.num_heads(),
                                             options.head_dim() == 0 || options.value_head_dim() == 0);
  resolve_width(kGatedLinearAttention, "head_dim", options.head_dim(), std::max<int64_t>(per_head / 2, 1));
  resolve_width(kGatedLinearAttention, "value_head_dim", options.value_head_dim(), per_head);
  check_width(kGatedLinearAttention, "gate_rank", options.gate_rank());
  if (!(options.gate_temperature() > 0)) {
    checks::fail(kGatedLinearAttention, "gate_temperature", "a value above 0",
                 c10::str(options.gate_temperature()));
  }
  return options;
}

}  // namespace

GatedLinearAttentionImpl::GatedLinearAttentionImpl(const GatedLinearAttentionOptions& options_)
    : options(resolved(options_)) {
  reset();
}

void GatedLinearAttentionImpl::reset() {
  const int64_t width = options.embed_dim(), keys = options.num_heads() * options.head_dim(),
                values = options.num_heads() * options.value_head_dim();
  q_proj = register_module("q_proj", make_linear(width, keys));
  k_proj = register_module("k_proj", make_linear(width, keys));
  v_proj = register_module("v_proj", make_linear(width, values));
  g_proj = register_module("g_proj", make_linear(width, values));
  o_proj = register_module("o_proj", make_linear(values, width));
  gk_proj_down = register_module("gk_proj_down", make_linear(width, options.gate_rank()));
  gk_proj_up = register_module("gk_proj_up", make_linear(options.gate_rank(), keys, /*bias=*/true));
  g_norm_weight = register_parameter("g_norm_weight", at::ones({options.value_head_dim()}));
}

void GatedLinearAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::GatedLinearAttention(embed_dim=" << options.embed_dim()
         << ", num_heads=" << options.num_heads() << ", head_dim=" << options.head_dim()
         << ", value_head_dim=" << options.value_head_dim() << ")";
}

void GatedLinearAttentionImpl::check(const torch::Tensor& input, const RecurrentState* state) const {
  check_projections(kGatedLinearAttention, *this);
  check_input(kGatedLinearAttention, "input", input, options.embed_dim(), {"input", input}, q_proj->weight);
  check_state(kGatedLinearAttention, state, input,
              {options.num_heads(), options.head_dim(), options.value_head_dim()});
}

torch::Tensor GatedLinearAttentionImpl::forward(const torch::Tensor& input, RecurrentState* state) {
  check(input, state);
  const int64_t num_heads = options.num_heads();
  const auto gate = split_heads(gk_proj_up(gk_proj_down(input)), num_heads);
  const auto log_decay = sigmoid_log_decay(gate, options.gate_temperature());
  const auto heads = recurrent_attention(
      split_heads(q_proj(input), num_heads), split_heads(k_proj(input), num_heads),
      split_heads(v_proj(input), num_heads),
      {.feature_map = FeatureMap::identity, .normalize = false, .log_decay = log_decay}, state);
  const auto normed = rms_norm(heads, {}, options.eps()) * g_norm_weight;
  return o_proj(at::silu(g_proj(input)) * merge_heads(normed, input));
}

}  // namespace attend::nn
