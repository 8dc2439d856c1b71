#include "reference/linear_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "reference/keys.h"

namespace attend::reference {
namespace {

/// Zeros before the first step.
at::Tensor aligned(const at::Tensor& tensor, int64_t steps) {
  const int64_t missing = steps - tensor.size(2);
  return missing == 0 ? tensor : at::constant_pad_nd(tensor, {0, 0, missing, 0}, 0);
}

/// [B, H, Lk, 1 or D]
at::Tensor decay_of_each_step(const LinearAttentionCall& call) {
  const auto& g = call.log_decay;
  if (!g.defined() || g.dim() == 4) return g;
  if (g.dim() == 3) return g.unsqueeze(-1);
  return g.view({1, -1, 1, 1}).expand({call.query.size(0), g.size(0), call.key.size(2), 1});
}

/// Below it terms of a normaliser may have underflown, and gradients over it overflow.
double smallest_normaliser(at::ScalarType type) {
  const auto of = [](auto limits) { return double{limits.min() / limits.epsilon()}; };
  return type == at::kDouble ? of(std::numeric_limits<double>()) : of(std::numeric_limits<float>());
}

}  // namespace

at::Tensor feature_map(const at::Tensor& tensor, FeatureMap map) {
  const auto x = widen(tensor);
  // exp(x) - 1 + 1 would leave nothing of a small exp(x).
  if (map == FeatureMap::elu_plus_one) return at::where(x > 0, x + 1, at::exp(at::clamp_max(x, 0)));
  return map == FeatureMap::relu ? at::relu(x) : x;
}

at::Tensor normalized(const at::Tensor& read, double scale, bool normalize) {
  if (!normalize) return read * scale;
  const int64_t d_v = read.size(-1) - 1;
  const auto normaliser = read.slice(-1, d_v);
  const auto is_zero = normaliser.abs() < smallest_normaliser(normaliser.scalar_type());
  const auto output = read.slice(-1, 0, d_v) * scale / at::where(is_zero, 1.0, normaliser);
  return at::where(is_zero, 0.0, output);
}

LinearInputs linear_inputs(const LinearAttentionCall& call) {
  const int64_t batch = call.query.size(0), heads = call.query.size(1), keys = call.key.size(2);
  const int64_t steps = std::max(call.query.size(2), keys);
  auto key = call.key, value = widen(call.value);
  auto decay = decay_of_each_step(call);
  auto beta = call.beta.defined() ? call.beta.unsqueeze(-1) : at::Tensor();
  if (call.normalize) {
    value = at::cat({value, at::ones({batch, value.size(1), keys, 1}, value.options())}, -1);
  }
  if (!call.key_lengths.defined()) {
    key = feature_map(key, call.feature_map);
  } else {
    const auto lengths = call.key_lengths.to(key.device()).view({-1, 1, 1, 1});
    const auto is_past = at::arange(keys, lengths.options()).view({1, 1, -1, 1}) >= lengths;
    // Before the feature map, whose derivative may not be finite there, and after it.
    key = feature_map(key.masked_fill(is_past, 0), call.feature_map).masked_fill(is_past, 0);
    value = value.masked_fill(is_past, 0);
    if (decay.defined()) decay = decay.masked_fill(is_past, 0);
    if (beta.defined()) beta = beta.masked_fill(is_past, 0);
  }
  return {aligned(feature_map(call.query, call.feature_map), steps),
          aligned(repeat_heads(key, heads), steps),
          aligned(repeat_heads(value, heads), steps),
          decay.defined() ? aligned(decay, steps) : decay,
          beta.defined() ? aligned(beta, steps) : beta,
          call.initial_state.defined()
              // With no step it is the final state, which is the caller's own.
              ? (steps == 0 ? call.initial_state.clone() : call.initial_state)
              : at::zeros({batch, heads, key.size(3), call.state_width()}, key.options())};
}

LinearAttentionResult linear_attention_recurrent(const LinearAttentionCall& call) {
  const auto [query, key, value, log_decay, beta, initial] = linear_inputs(call);
  const int64_t steps = query.size(2), queries = call.query.size(2), d_v = call.value.size(3);
  auto state = initial;
  std::vector<at::Tensor> reads = {at::matmul(query.slice(2, 0, 0), state)};
  for (int64_t t = 0; t < steps; ++t) {
    const auto k = key.select(2, t).unsqueeze(-1);  // [B, H, D, 1]
    auto v = value.select(2, t).unsqueeze(-2);      // [B, H, 1, state_width]
    if (log_decay.defined()) state = at::exp(log_decay.select(2, t)).unsqueeze(-1) * state;
    if (beta.defined()) {  // of the values, not of the normaliser
      const auto known = at::matmul(k.transpose(-2, -1), state);
      const auto change = beta.select(2, t).unsqueeze(-1) * (v - known);
      v = at::cat({change.slice(-1, 0, d_v), v.slice(-1, d_v)}, -1);
    }
    state = state + k * v;
    if (t >= steps - queries) reads.push_back(at::matmul(query.narrow(2, t, 1), state));
  }
  const auto read = at::cat(reads, 2);
  return {normalized(read, call.scale, call.normalize).to(call.query.scalar_type()), state};
}

}  // namespace attend::reference
