#include "reference/random_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/cummax.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/log.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <attend/linear_attention.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "core/checks.h"

namespace attend {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// A stronger decay forgets everything, in float64 too; sums of it stay finite.
constexpr double kStrongestDecay = -1000;

/// States come in as numbers, so that their units are no further from 1 than this, twice what float32 holds.
constexpr double kFurthestUnit = 160;

int64_t heads_per_key(const LinearAttentionCall& call) { return call.query.size(1) / call.key.size(1); }

/// [B, 1, Lk, 1] for lengths [B]; undefined for undefined ones.
at::Tensor past_lengths(const LinearAttentionCall& call) {
  if (!call.key_lengths.defined()) return {};
  const auto position = at::arange(call.key.size(2), call.key_lengths.options()).view({1, 1, -1, 1});
  return (position >= call.key_lengths.view({-1, 1, 1, 1})).to(call.key.device());
}

/// Of keys past their lengths nothing is read, and the features are 0.
at::Tensor log_features_of_key(const LinearAttentionCall& call, const at::Tensor& projection,
                               const at::Tensor& is_past) {
  const auto key = call.key.to(call.compute_type());
  if (!is_past.defined()) return log_random_features(key, projection, call.scale);
  return log_random_features(key.masked_fill(is_past, 0), projection, call.scale)
      .masked_fill(is_past, kMinusInfinity);
}

/// log_decay as [1 or B, H, 1 or Lk, 1 or M], of float64.
at::Tensor wide_decay(const at::Tensor& log_decay) {
  auto wide = log_decay.to(at::kDouble);
  if (wide.dim() == 4) return wide;
  return wide.dim() == 3 ? wide.unsqueeze(-1) : wide.view({1, -1, 1, 1});
}

/// Sums of the weakest decay, of a key's heads and channels, up to each key: [B, Hkv, 1 + Lk], from 0 on.
at::Tensor sums_of_decays(const LinearAttentionCall& call, const at::Tensor& is_past) {
  const int64_t batch = call.key.size(0), heads = call.key.size(1), keys = call.key.size(2);
  const auto options = call.key.options().dtype(at::kDouble);
  if (!call.log_decay.defined()) return at::zeros({batch, heads, 1 + keys}, options);
  const auto of_heads = at::amax(wide_decay(call.log_decay.detach()), -1, /*keepdim=*/true);
  auto decays = of_heads.expand({batch, call.query.size(1), keys, 1});
  if (is_past.defined()) decays = decays.masked_fill(is_past, 0);
  const auto of_keys = at::amax(decays.reshape({batch, heads, heads_per_key(call), keys}), 2);
  return at::constant_pad_nd(at::cumsum(at::clamp_min(of_keys, kStrongestDecay), 2), {1, 0}, 0);
}

/// The unit of the state that comes in, [B, Hkv, 1], from its largest number; where there is none, `first`.
at::Tensor log_unit_of_state(const LinearAttentionCall& call, const at::Tensor& first) {
  if (!call.initial_state.defined() || call.initial_state.numel() == 0) return first;
  const auto state = call.initial_state.detach().to(at::kDouble);
  const auto numbers = call.normalize ? state.slice(-1, call.value.size(3)) : state;
  const int64_t of_key = heads_per_key(call) * state.size(2) * numbers.size(3);
  const auto largest =
      at::amax(numbers.abs().reshape({call.key.size(0), call.key.size(1), of_key}), -1, /*keepdim=*/true);
  return at::clamp(at::where(largest > 0, at::log(largest), first), -kFurthestUnit, kFurthestUnit);
}

/// After each key the largest of what a state is made of: with the sums of decays G and the largest exponent
/// x_s of each key, u_t = G_t + max of the first unit and x_s - G_s, s <= t. A constant to differentiation,
/// since it cancels. [B, Hkv, 1 + Lk]
at::Tensor log_units_of_keys(const LinearAttentionCall& call, const at::Tensor& log_key,
                             const at::Tensor& is_past) {
  const auto largest = at::amax(log_key.detach(), -1).to(at::kDouble);
  const auto none = at::zeros({largest.size(0), largest.size(1), 1}, largest.options());
  const auto first = largest.size(2) == 0 ? none : largest.slice(2, 0, 1);
  const auto sums = sums_of_decays(call, is_past);
  const auto before = log_unit_of_state(call, at::where(first.isfinite(), first, 0.0));
  const auto relative = at::cat({before, largest - sums.slice(2, 1)}, 2);
  return sums + std::get<0>(at::cummax(relative, 2));
}

}  // namespace

at::Tensor log_random_features(const at::Tensor& x, const at::Tensor& projection, double scale) {
  const auto scaled = x * std::sqrt(scale);  // w_m x' - |x'|^2 / 2 - log(M) / 2 with x' = sqrt(scale) x
  const double log_count = std::log(static_cast<double>(projection.size(0)));
  return at::matmul(scaled, projection.transpose(0, 1)) -
         (scaled.square().sum(-1, /*keepdim=*/true) + log_count) / 2;
}

at::Tensor log_random_features_of_query(const LinearAttentionCall& call, const at::Tensor& projection) {
  const auto exponents = log_random_features(call.query.to(call.compute_type()), projection, call.scale);
  return call.normalize ? exponents - at::amax(exponents.detach(), -1, /*keepdim=*/true) : exponents;
}

RandomFeaturesCall random_features_call(const LinearAttentionCall& call, const at::Tensor& projection,
                                        bool is_causal) {
  const auto type = call.compute_type();
  const int64_t batch = call.query.size(0), heads = call.query.size(1), keys = call.key.size(2);
  const auto is_past = past_lengths(call);
  auto log_key = log_features_of_key(call, projection.to(type), is_past);
  RandomFeaturesCall result{call, at::zeros({batch, heads, 1 + keys}, call.key.options().dtype(at::kDouble))};
  auto& of_features = result.call;
  of_features.query = at::exp(log_random_features_of_query(call, projection.to(type)));
  of_features.value = call.value.to(type);
  of_features.feature_map = FeatureMap::identity;
  of_features.scale = 1;
  // The delta rule is not linear in the keys: they have no units.
  if (!call.beta.defined() && heads > 0) {
    auto units = log_units_of_keys(call, log_key, is_past);
    const bool is_running = is_causal || call.log_decay.defined();
    if (!is_running) units = units.slice(2, keys).expand_as(units);
    log_key = log_key - units.slice(2, 1).unsqueeze(-1).to(type);
    units = units.repeat_interleave(heads_per_key(call), 1);
    if (is_running) {  // a state goes from one unit to the next
      const auto change = (units.slice(2, 0, keys) - units.slice(2, 1)).unsqueeze(-1);
      const auto decay = call.log_decay.defined() ? wide_decay(call.log_decay) + change : change;
      of_features.log_decay = (decay.size(-1) == 1 ? decay.squeeze(-1) : decay).to(type);
    }
    if (call.initial_state.defined()) {
      of_features.initial_state = times_exp(call.initial_state, -units.slice(2, 0, 1).unsqueeze(-1));
    }
    result.log_units = units;
  }
  of_features.key = at::exp(log_key);
  return result;
}

at::Tensor times_exp(const at::Tensor& tensor, const at::Tensor& log_factor) {
  const double largest = tensor.scalar_type() == at::kDouble ? 709 : 88;  // whose exponential is finite
  const auto root = at::exp(at::clamp_max(log_factor.to(tensor.scalar_type()) / 2, largest));
  return tensor * root * root;
}

at::Tensor orthogonal_projection(int64_t num_features, int64_t head_dim,
                                 const std::optional<at::Generator>& generator) {
  const auto check = [](const char* argument, int64_t number) {
    if (number < 1)
      checks::fail("orthogonal_projection", argument, "a number of at least 1", c10::str(number));
  };
  check("num_features", num_features);
  check("head_dim", head_dim);
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const int64_t blocks = (num_features + head_dim - 1) / head_dim;
  // The signs make the rotations uniform: those that a QR decomposition leaves are its algorithm's.
  const auto [q, r] = at::linalg_qr(at::randn({blocks, head_dim, head_dim}, generator, options));
  const auto signs = at::sign(at::diagonal(r, 0, -2, -1)).unsqueeze(-2);
  const auto directions = (q * signs).transpose(-2, -1).reshape({-1, head_dim}).slice(0, 0, num_features);
  const auto gaussian = at::randn({num_features, head_dim}, generator, options);
  const auto lengths = at::linalg_vector_norm(gaussian, 2, at::IntArrayRef{1}, /*keepdim=*/true);
  return (directions * lengths).to(at::kFloat);
}

}  // namespace attend
