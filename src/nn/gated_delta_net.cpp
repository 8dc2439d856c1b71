#include <ATen/TensorOperators.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/expm1.h>
#include <ATen/ops/log.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/zeros.h>
#include <attend/nn/linear_attention.h>

#include <cmath>
#include <ostream>

#include "core/checks.h"
#include "core/compute_type.h"
#include "nn/checks.h"
#include "nn/linear_mixer.h"
#include "nn/unit.h"

namespace attend::nn {
namespace {

constexpr auto kGatedDeltaNet = "nn::GatedDeltaNet";

GatedDeltaNetOptions completed(GatedDeltaNetOptions options) {
  const int64_t per_head =
      channels_per_head(kGatedDeltaNet, options.embed_dim(), options.num_heads(), options.head_dim() == 0);
  fill_in_width(kGatedDeltaNet, "head_dim", options.head_dim(), per_head);
  fill_in_width(kGatedDeltaNet, "head_v_dim", options.head_v_dim(), 2 * options.head_dim());
  fill_in_width(kGatedDeltaNet, "conv_size", options.conv_size(), 0);
  return options;
}

/// As torch.nn.Conv1d begins.
torch::Tensor initial_conv(int64_t channels, int64_t size) {
  const double bound = 1 / std::sqrt(static_cast<double>(size));
  return (at::rand({channels, size}) * 2 - 1) * bound;
}

/// The inverse of softplus at numbers between 0.001 and 0.1, uniform in their logarithms (Gu & Dao 2023).
torch::Tensor initial_dt_bias(int64_t heads) {
  const auto dt = at::exp(at::rand({heads}) * std::log(100.0) + std::log(0.001));
  return dt + at::log(-at::expm1(-dt));
}

constexpr double kQueryKeyEps = 1e-6;  // as the authors' code has it

}  // namespace

GatedDeltaNetImpl::GatedDeltaNetImpl(const GatedDeltaNetOptions& options_) : options(completed(options_)) {
  reset();
}

void GatedDeltaNetImpl::reset() {
  const int64_t width = options.embed_dim(), heads = options.num_heads(), keys = heads * options.head_dim(),
                values = heads * options.head_v_dim(), size = options.conv_size();
  q_proj = register_module("q_proj", make_linear(width, keys));
  k_proj = register_module("k_proj", make_linear(width, keys));
  v_proj = register_module("v_proj", make_linear(width, values));
  a_proj = register_module("a_proj", make_linear(width, heads));
  b_proj = register_module("b_proj", make_linear(width, heads));
  g_proj = register_module("g_proj", make_linear(width, values));
  o_proj = register_module("o_proj", make_linear(values, width));
  q_conv = register_parameter("q_conv", initial_conv(keys, size));
  k_conv = register_parameter("k_conv", initial_conv(keys, size));
  v_conv = register_parameter("v_conv", initial_conv(values, size));
  A_log = register_parameter("A_log", at::log(at::rand({heads}) * 16 + 1e-4));
  dt_bias = register_parameter("dt_bias", initial_dt_bias(heads));
  o_norm_weight = register_parameter("o_norm_weight", at::ones({options.head_v_dim()}));
}

void GatedDeltaNetImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::GatedDeltaNet(embed_dim=" << options.embed_dim()
         << ", num_heads=" << options.num_heads() << ", head_dim=" << options.head_dim()
         << ", head_v_dim=" << options.head_v_dim() << ")";
}

/// Projected rows [B, L, channels] after those that the convolution sees before them.
torch::Tensor GatedDeltaNetImpl::with_recent(const torch::Tensor& projected,
                                             const RecurrentState* state) const {
  const int64_t before = options.conv_size() - 1;
  const auto recent = state != nullptr && state->recent.defined()
                          ? state->recent.to(projected.scalar_type())
                          : at::zeros({projected.size(0), before, projected.size(2)}, projected.options());
  return at::cat({recent, projected}, 1);
}

/// silu of the causal convolutions of queries, keys and values side by side, [B, L, channels].
torch::Tensor GatedDeltaNetImpl::convolved(const torch::Tensor& with_recent) const {
  const int64_t before = options.conv_size() - 1, length = with_recent.size(1) - before;
  const auto weight = at::cat({q_conv, k_conv, v_conv});
  // As shifted products: several times faster than at::conv1d with a group for each channel.
  auto sums = with_recent.slice(1, before) * weight.select(1, before);
  for (int64_t n = 0; n < before; ++n) {
    sums = at::addcmul(sums, with_recent.slice(1, n, n + length), weight.select(1, n));
  }
  return at::silu(sums);
}

torch::Tensor GatedDeltaNetImpl::forward(const torch::Tensor& input, RecurrentState* state) {
  check_input(kGatedDeltaNet, "input", input, options.embed_dim(), {"input", input}, q_proj->weight);
  const int64_t num_heads = options.num_heads(), keys = num_heads * options.head_dim();
  check_state(kGatedDeltaNet, state, input, {num_heads, options.head_dim(), options.head_v_dim()},
              {options.conv_size() - 1, 2 * keys + num_heads * options.head_v_dim()});
  const auto batched = input.dim() == 3 ? input : input.unsqueeze(0);
  const auto rows = with_recent(at::cat({q_proj(batched), k_proj(batched), v_proj(batched)}, -1), state);
  const auto parts = convolved(rows).split_with_sizes({keys, keys, num_heads * options.head_v_dim()}, -1);
  const auto of_token = [](const torch::Tensor& projected) {  // [B, H, L], in float32 at least
    return widen(projected.transpose(1, 2));
  };
  const auto type = compute_type(input);
  const auto log_decay = -at::exp(A_log.to(type)).unsqueeze(-1) *
                         at::softplus(of_token(a_proj(batched)) + dt_bias.to(type).unsqueeze(-1));
  const auto heads = recur(unit(in_heads(parts[0], num_heads), kQueryKeyEps),
                           unit(in_heads(parts[1], num_heads), kQueryKeyEps), in_heads(parts[2], num_heads),
                           {.feature_map = FeatureMap::identity,
                            .normalize = false,
                            .log_decay = log_decay,
                            .beta = at::sigmoid(of_token(b_proj(batched)))},
                           state);
  if (state != nullptr) state->recent = rows.slice(1, input.size(-2)).clone();
  const auto normed = rms_norm(heads, o_norm_weight, options.eps());
  return o_proj(at::silu(g_proj(input)) * out_of_heads(normed, input));
}

}  // namespace attend::nn
