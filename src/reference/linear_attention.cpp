#include "reference/linear_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "reference/keys.h"

namespace attend::reference {
namespace {

/// Pads dimension 2 with zeros in front, so that the tensor has `steps` steps.
at::Tensor aligned(const at::Tensor& tensor, const c10::SymInt& steps) {
  const auto missing = steps - tensor.sym_size(2);
  return missing == 0 ? tensor : at::constant_pad_nd_symint(tensor, {0, 0, missing, 0}, 0);
}

/// Returns the threshold below which the magnitude of a normaliser counts as 0: terms of a smaller normaliser
/// may have underflowed, and gradients divided by it would overflow.
double smallest_normaliser(at::ScalarType type) {
  const auto smallest = [](auto limits) { return double{limits.min() / limits.epsilon()}; };
  return type == at::kDouble ? smallest(std::numeric_limits<double>())
                             : smallest(std::numeric_limits<float>());
}

}  // namespace

at::Tensor feature_map(const at::Tensor& tensor, FeatureMap map) {
  const auto x = widen(tensor);
  // Not at::elu(x) + 1: exp(x) - 1 + 1 would cancel a small exp(x).
  if (map == FeatureMap::elu_plus_one) return at::where(x > 0, x + 1, at::exp(at::clamp_max(x, 0)));
  return map == FeatureMap::relu ? at::relu(x) : x;
}

at::Tensor normalized(const at::Tensor& read, double scale, bool normalize) {
  if (!normalize) return read * scale;
  const auto d_v = read.sym_size(-1) - 1;
  const auto normaliser = read.slice_symint(-1, d_v);
  const auto is_zero = normaliser.abs() < smallest_normaliser(normaliser.scalar_type());
  const auto output = read.slice_symint(-1, 0, d_v) * scale / at::where(is_zero, 1.0, normaliser);
  return at::where(is_zero, 0.0, output);
}

at::Tensor read_state(const LinearAttentionCall& call, const at::Tensor& state) {
  const auto read = at::matmul(feature_map(call.query, call.feature_map), state);
  return normalized(read, call.scale, call.normalize).to(call.query.scalar_type());
}

LinearInputs linear_inputs(const LinearAttentionCall& call) {
  const auto batch = call.query.sym_size(0), heads = call.query.sym_size(1), keys = call.key.sym_size(2);
  const auto steps = std::max(call.query.sym_size(2), keys);
  auto key = call.key, value = widen(call.value);
  auto decay = decay_per_step(call.log_decay, call);
  auto beta = call.beta.defined() ? call.beta.unsqueeze(-1) : at::Tensor();
  if (call.normalize) value = at::constant_pad_nd(value, {0, 1}, 1);
  if (!call.key_lengths.defined()) {
    key = feature_map(key, call.feature_map);
  } else {
    const auto is_past = past_lengths(call.key_lengths, keys, key.device());
    // Keys past their length are set to zero before the feature map, whose derivative may not be finite
    // there, and again after it, since the map may not map zero to zero.
    key = feature_map(key.masked_fill(is_past, 0), call.feature_map).masked_fill(is_past, 0);
    value = value.masked_fill(is_past, 0);
    if (decay.defined()) decay = decay.masked_fill(is_past, 0);
    if (beta.defined()) beta = beta.masked_fill(is_past, 0);
  }
  return {.query = aligned(feature_map(call.query, call.feature_map), steps),
          .key = aligned(repeat_heads(key, heads), steps),
          .value = aligned(repeat_heads(value, heads), steps),
          .log_decay = decay.defined() ? aligned(decay, steps) : decay,
          .beta = beta.defined() ? aligned(beta, steps) : beta,
          .state =
              call.initial_state.defined()
                  // With no steps the initial state is returned as the final state, which must not alias
                  // the caller's tensor.
                  ? (steps == 0 ? call.initial_state.clone() : call.initial_state)
                  : at::zeros_symint({batch, heads, key.sym_size(3), call.sym_state_width()}, key.options())};
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
    if (beta.defined()) {  // the delta rule applies to the value, not to the normaliser
      const auto predicted = at::matmul(k.transpose(-2, -1), state);
      const auto change = beta.select(2, t).unsqueeze(-1) * (v - predicted);
      v = at::cat({change.slice(-1, 0, d_v), v.slice(-1, d_v)}, -1);
    }
    state = state + k * v;
    if (t >= steps - queries) reads.push_back(at::matmul(query.narrow(2, t, 1), state));
  }
  const auto read = at::cat(reads, 2);
  return {normalized(read, call.scale, call.normalize).to(call.query.scalar_type()), state};
}

}  // namespace attend::reference
