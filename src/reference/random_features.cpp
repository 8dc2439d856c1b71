#include "reference/random_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <tuple>

#include "reference/keys.h"

namespace attend::reference {
namespace {

/// Log decays below this value are clamped to it: exp(-1000) is 0 even in float64, and cumulative sums of log
/// decays stay finite.
constexpr double kMinLogDecay = -1000;

/// The bound of the magnitude of the logarithm of an initial state's unit. It covers every float32 value, and
/// `times_exp` can apply it in float32.
constexpr double kMaxLogUnit = 160;

int64_t heads_per_key(const LinearAttentionCall& call) { return call.query.size(1) / call.key.size(1); }

/// Returns a boolean tensor [B, 1, Lk, 1] that is true for keys at or past their length; undefined without
/// key lengths.
at::Tensor is_past_length(const LinearAttentionCall& call) {
  if (!call.key_lengths.defined()) return {};
  return past_lengths(call.key_lengths, call.key.size(2), call.key.device());
}

/// Returns the logarithms of the features [B, H, L, M] of x [B, H, L, D]: w_m x' - |x'|^2 / 2 - log(M) / 2
/// with x' = sqrt(scale) x. `projection` is [M, D], with rows w_m, of the dtype of `x`.
at::Tensor log_features(const at::Tensor& x, const at::Tensor& projection, double scale) {
  const auto scaled = x * std::sqrt(scale);
  const double log_count = std::log(static_cast<double>(projection.size(0)));
  return at::matmul(scaled, projection.transpose(0, 1)) -
         (scaled.square().sum(-1, /*keepdim=*/true) + log_count) / 2;
}

at::Tensor log_query_features(const LinearAttentionCall& call, const at::Tensor& projection) {
  const auto exponents = log_features(widen(call.query), projection, call.scale);
  return call.normalize ? exponents - at::amax(exponents.detach(), -1, /*keepdim=*/true) : exponents;
}

/// Returns the logarithms of the features of the keys. Keys at or past their length are not read, and their
/// features are 0.
at::Tensor log_key_features(const LinearAttentionCall& call, const at::Tensor& projection,
                            const at::Tensor& is_past) {
  const auto key = widen(call.key);
  if (!is_past.defined()) return log_features(key, projection, call.scale);
  return log_features(key.masked_fill(is_past, 0), projection, call.scale)
      .masked_fill(is_past, kMinusInfinity);
}

/// Returns the call with the features in place of queries and keys, given the logarithms of the features.
LinearAttentionCall with_features(LinearAttentionCall call, const at::Tensor& log_query,
                                  const at::Tensor& log_key) {
  call.query = at::exp(log_query);
  call.key = at::exp(log_key);
  call.value = widen(call.value);
  call.feature_map = FeatureMap::identity;
  call.scale = 1;
  return call;
}

/// Returns the cumulative sums of the log decays of the keys, [B, Hkv, 1 + Lk], beginning with 0. The log
/// decay of a key is the largest (the weakest decay) among its query heads and channels.
at::Tensor sums_of_decays(const LinearAttentionCall& call, const at::Tensor& is_past) {
  const int64_t batch = call.key.size(0), heads = call.key.size(1), keys = call.key.size(2);
  const auto options = call.key.options().dtype(at::kDouble);
  if (!call.log_decay.defined()) return at::zeros({batch, heads, 1 + keys}, options);
  const auto log_decay = call.log_decay.detach().to(at::kDouble);
  auto decays = at::amax(decay_per_step(log_decay, call), -1, /*keepdim=*/true);
  if (is_past.defined()) decays = decays.masked_fill(is_past, 0);
  const auto key_decays = at::amax(decays.reshape({batch, heads, heads_per_key(call), keys}), 2);
  return at::constant_pad_nd(at::cumsum(at::clamp_min(key_decays, kMinLogDecay), 2), {1, 0}, 0);
}

/// Returns the logarithm of the unit of the initial state, [B, Hkv, 1]: the logarithm of the largest
/// magnitude in the state (with `normalize`, in its normaliser), or `first` if that magnitude is 0 or there
/// is no state.
at::Tensor log_unit_of_state(const LinearAttentionCall& call, const at::Tensor& first) {
  if (!call.initial_state.defined() || call.initial_state.numel() == 0) return first;
  const auto state = call.initial_state.detach().to(at::kDouble);
  const auto elements = call.normalize ? state.slice(-1, call.value.size(3)) : state;
  const int64_t elements_per_key = heads_per_key(call) * state.size(2) * elements.size(3);
  const auto largest = at::amax(
      elements.abs().reshape({call.key.size(0), call.key.size(1), elements_per_key}), -1, /*keepdim=*/true);
  return at::clamp(at::where(largest > 0, at::log(largest), first), -kMaxLogUnit, kMaxLogUnit);
}

/// Returns the logarithms of the units before the first key and after each key, [B, Hkv, 1 + Lk], such that
/// the largest term of the state is of order 1. With the cumulative log decays G and the largest log feature
/// x_s of each key,
///
///     u_t = G_t + max(first unit, max over s <= t of x_s - G_s)
///
/// The units are not differentiated, since they cancel in the result.
at::Tensor log_key_units(const LinearAttentionCall& call, const at::Tensor& log_key,
                         const at::Tensor& is_past) {
  const auto largest = at::amax(log_key.detach(), -1).to(at::kDouble);
  const auto zero = at::zeros({largest.size(0), largest.size(1), 1}, largest.options());
  const auto first = largest.size(2) == 0 ? zero : largest.slice(2, 0, 1);
  const auto sums = sums_of_decays(call, is_past);
  const auto before = log_unit_of_state(call, at::where(first.isfinite(), first, 0.0));
  const auto relative = at::cat({before, largest - sums.slice(2, 1)}, 2);
  return sums + std::get<0>(at::cummax(relative, 2));
}

}  // namespace

LinearAttentionCall random_features(const LinearAttentionCall& call, const at::Tensor& projection) {
  const auto wide_projection = projection.to(call.compute_type());
  return with_features(call, log_query_features(call, wide_projection),
                       log_key_features(call, wide_projection, is_past_length(call)));
}

StabilizedFeatures stabilized_random_features(const LinearAttentionCall& call, const at::Tensor& projection,
                                              bool is_causal) {
  const auto type = call.compute_type();
  const auto wide_projection = projection.to(type);
  const int64_t batch = call.query.size(0), heads = call.query.size(1), keys = call.key.size(2);
  const auto is_past = is_past_length(call);
  const auto log_query = log_query_features(call, wide_projection);
  auto log_key = log_key_features(call, wide_projection, is_past);
  // The delta rule is not linear in the keys, so the keys can't be divided by units.
  if (call.beta.defined() || heads == 0) {
    return {.call = with_features(call, log_query, log_key),
            .log_units = at::zeros({batch, heads, 1 + keys}, call.key.options().dtype(at::kDouble))};
  }
  auto units = log_key_units(call, log_key, is_past);
  const bool is_running = is_causal || call.log_decay.defined();
  if (!is_running) units = units.slice(2, keys).expand_as(units);
  log_key = log_key - units.slice(2, 1).unsqueeze(-1).to(type);
  units = units.repeat_interleave(heads_per_key(call), 1);
  StabilizedFeatures result{.call = with_features(call, log_query, log_key), .log_units = units};
  if (is_running) {  // the decay also converts the state from one unit to the next
    const auto change = (units.slice(2, 0, keys) - units.slice(2, 1)).unsqueeze(-1);
    const auto decay =
        call.log_decay.defined() ? decay_per_step(call.log_decay.to(at::kDouble), call) + change : change;
    result.call.log_decay = (decay.size(-1) == 1 ? decay.squeeze(-1) : decay).to(type);
  }
  if (call.initial_state.defined()) {
    result.call.initial_state = times_exp(call.initial_state, -units.slice(2, 0, 1).unsqueeze(-1));
  }
  return result;
}

at::Tensor times_exp(const at::Tensor& tensor, const at::Tensor& log_factor) {
  // The largest integer whose exponential is finite in the dtype.
  const double largest = tensor.scalar_type() == at::kDouble ? 709 : 88;
  const auto root = at::exp(at::clamp_max(log_factor.to(tensor.scalar_type()) / 2, largest));
  return tensor * root * root;
}

}  // namespace attend::reference
