#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>
#include <attend/nn/gated_delta_net.h>

#include <ostream>

#include "core/dtypes.h"
#include "nn/checks.h"
#include "nn/decay.h"
#include "nn/l2_norm.h"
#include "nn/linear_mixer.h"
#include "nn/rms_norm.h"
#include "nn/short_convolution.h"

namespace attend::nn {
namespace {

constexpr auto kGatedDeltaNet = "nn::GatedDeltaNet";
constexpr double kQueryKeyEps = 1e-6;  // as in the authors' code

GatedDeltaNetOptions resolved(GatedDeltaNetOptions options) {
  const int64_t per_head =
      channels_per_head(kGatedDeltaNet, options.embed_dim(), options.num_heads(), options.head_dim() == 0);
  resolve_width(kGatedDeltaNet, "head_dim", options.head_dim(), per_head);
  resolve_width(kGatedDeltaNet, "value_head_dim", options.value_head_dim(), 2 * options.head_dim());
  check_width(kGatedDeltaNet, "conv_size", options.conv_size());
  return options;
}

/// Returns `projected` [B, L, channels] with the last `before` inputs of the preceding steps in front of it.
/// Inputs before the first token are zeros.
at::Tensor with_recent(const at::Tensor& projected, const RecurrentState* state, int64_t before) {
  const auto recent = state != nullptr && state->recent.defined()
                          ? state->recent.to(projected.scalar_type())
                          : at::zeros({projected.size(0), before, projected.size(2)}, projected.options());
  return at::cat({recent, projected}, 1);
}

}  // namespace

GatedDeltaNetImpl::GatedDeltaNetImpl(const GatedDeltaNetOptions& options_) : options(resolved(options_)) {
  reset();
}

void GatedDeltaNetImpl::reset() {
  const int64_t width = options.embed_dim(), heads = options.num_heads(), keys = heads * options.head_dim(),
                values = heads * options.value_head_dim(), size = options.conv_size();
  q_proj = register_module("q_proj", make_linear(width, keys));
  k_proj = register_module("k_proj", make_linear(width, keys));
  v_proj = register_module("v_proj", make_linear(width, values));
  a_proj = register_module("a_proj", make_linear(width, heads));
  b_proj = register_module("b_proj", make_linear(width, heads));
  g_proj = register_module("g_proj", make_linear(width, values));
  o_proj = register_module("o_proj", make_linear(values, width));
  q_conv = register_parameter("q_conv", initial_short_convolution(keys, size));
  k_conv = register_parameter("k_conv", initial_short_convolution(keys, size));
  v_conv = register_parameter("v_conv", initial_short_convolution(values, size));
  A_log = register_parameter("A_log", initial_A_log(heads));
  dt_bias = register_parameter("dt_bias", initial_dt_bias(heads));
  o_norm_weight = register_parameter("o_norm_weight", at::ones({options.value_head_dim()}));
}

void GatedDeltaNetImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::GatedDeltaNet(embed_dim=" << options.embed_dim()
         << ", num_heads=" << options.num_heads() << ", head_dim=" << options.head_dim()
         << ", value_head_dim=" << options.value_head_dim() << ")";
}

void GatedDeltaNetImpl::check(const torch::Tensor& input, const RecurrentState* state) const {
  check_projections(kGatedDeltaNet, *this);
  check_option(kGatedDeltaNet, "options.conv_size", q_conv.size(-1) == options.conv_size());
  check_option(kGatedDeltaNet, "options.num_heads", A_log.size(0) == options.num_heads());
  check_input(kGatedDeltaNet, "input", input, options.embed_dim(), {"input", input}, q_proj->weight);
  const int64_t num_heads = options.num_heads(), keys = num_heads * options.head_dim(),
                values = num_heads * options.value_head_dim(), before = options.conv_size() - 1;
  check_state(kGatedDeltaNet, state, input, {num_heads, options.head_dim(), options.value_head_dim()},
              {before, 2 * keys + values});
}

torch::Tensor GatedDeltaNetImpl::forward(const torch::Tensor& input, RecurrentState* state) {
  check(input, state);
  const int64_t num_heads = options.num_heads(), keys = num_heads * options.head_dim(),
                values = num_heads * options.value_head_dim(), before = options.conv_size() - 1;
  const auto batched = input.dim() == 3 ? input : input.unsqueeze(0);
  const auto rows =
      with_recent(at::cat({q_proj(batched), k_proj(batched), v_proj(batched)}, -1), state, before);
  const auto recent = state != nullptr ? rows.slice(1, input.size(-2)).clone() : torch::Tensor();
  const auto convolved = at::silu(short_convolution(rows, at::cat({q_conv, k_conv, v_conv})));
  const auto parts = convolved.split_with_sizes({keys, keys, values}, -1);
  const auto step = a_proj(batched).transpose(1, 2), beta = b_proj(batched).transpose(1, 2);  // [B, H, L]
  const auto heads = recurrent_attention(l2_norm(split_heads(parts[0], num_heads), kQueryKeyEps),
                                         l2_norm(split_heads(parts[1], num_heads), kQueryKeyEps),
                                         split_heads(parts[2], num_heads),
                                         {.feature_map = FeatureMap::identity,
                                          .normalize = false,
                                          .log_decay = delta_log_decay(A_log, step, dt_bias),
                                          .beta = at::sigmoid(widen(beta))},
                                         state);
  if (state != nullptr) state->recent = recent;
  const auto normed = rms_norm(heads, {}, options.eps()) * o_norm_weight;
  return o_proj(at::silu(g_proj(input)) * merge_heads(normed, input));
}

}  // namespace attend::nn
