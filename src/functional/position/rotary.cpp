#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <attend/positional_encoding.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/checks.h"
#include "core/dtypes.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;

void check_params(const char* function, int64_t dims, const RotaryParams& params) {
  if (dims < 2 || dims % 2 != 0) fail(function, "dims", "an even number of at least 2", c10::str(dims));
  if (!(params.base > 1 && std::isfinite(params.base))) {
    fail(function, "base", "a number above 1", c10::str(params.base));
  }
  if (!(params.factor >= 1 && std::isfinite(params.factor))) {
    fail(function, "factor", "a number of at least 1", c10::str(params.factor));
  }
  if (params.scaling == RotaryScaling::none && params.factor != 1) {
    fail(function, "factor", "1 without a scaling", c10::str(params.factor));
  }
  if (params.scaling != RotaryScaling::yarn) return;
  if (params.original_length < 1) {
    fail(function, "original_length", "the length of the training context, for YaRN",
         c10::str(params.original_length));
  }
  if (!(params.beta_slow > 0 && params.beta_fast >= params.beta_slow)) {
    fail(function, "beta_fast", c10::str("at least beta_slow, above 0; beta_slow is ", params.beta_slow),
         c10::str(params.beta_fast));
  }
}

/// Returns the index of the pair of channels, as a real number, that makes `rotations` rotations within the
/// training context.
double pair_of_rotations(double rotations, double dims, const RotaryParams& params) {
  // Solves original_length * base^(-2 i / dims) = 2 pi * rotations for i.
  const double ratio = static_cast<double>(params.original_length) / (rotations * 2 * std::numbers::pi);
  return dims * std::log(ratio) / (2 * std::log(params.base));
}

/// The degree of interpolation of the frequency of each pair of channels: 0 for high frequencies, 1 for low
/// frequencies.
class YarnRamp {
 public:
  YarnRamp(double dims, const RotaryParams& params)
      : low_(std::clamp(std::floor(pair_of_rotations(params.beta_fast, dims, params)), 0.0, dims - 1)),
        high_(std::clamp(std::ceil(pair_of_rotations(params.beta_slow, dims, params)), low_, dims - 1)) {
    if (low_ == high_) high_ += 0.001;  // a step function, as in the authors' code
  }

  double operator()(double pair) const { return std::clamp((pair - low_) / (high_ - low_), 0.0, 1.0); }

 private:
  double low_, high_;
};

/// Returns the factor by which the rotated channels are multiplied.
double attention_factor(const RotaryParams& params) {
  if (params.scaling != RotaryScaling::yarn) return 1;
  return params.attention_factor.value_or(0.1 * std::log(params.factor) + 1);
}

int64_t rotated_dims(int64_t channels, const RotaryParams& params) {
  return params.dims == 0 ? channels : params.dims;
}

/// The cosine and sine of each position and pair of channels, in compute type. Both broadcast to the shape of
/// x with dims / 2 channels.
struct Angles {
  at::Tensor cos, sin;
};

Angles angles_of(const at::Tensor& x, int64_t dims, const RotaryParams& params, const at::Tensor& positions) {
  const auto wide = x.options().dtype(at::kDouble);
  auto position = positions.defined() ? positions.to(wide) : at::arange(x.size(-2), wide);
  if (position.dim() == 2 && x.dim() == 4) position = position.unsqueeze(1);
  const auto angle = position.unsqueeze(-1) * rotary_frequencies(dims, params).to(x.device());
  const auto dtype = compute_type(x);
  const double factor = attention_factor(params);
  return {(at::cos(angle) * factor).to(dtype), (at::sin(angle) * factor).to(dtype)};
}

/// Rotates all channels of x, which has the dtype of the angles.
at::Tensor rotated_pairs(const at::Tensor& x, const Angles& angles, RotaryLayout layout) {
  const bool interleaved = layout == RotaryLayout::interleaved;
  const int64_t pairs = x.size(-1) / 2;
  const auto a = interleaved ? x.slice(-1, 0, {}, 2) : x.slice(-1, 0, pairs);
  const auto b = interleaved ? x.slice(-1, 1, {}, 2) : x.slice(-1, pairs);
  const auto new_a = a * angles.cos - b * angles.sin, new_b = a * angles.sin + b * angles.cos;
  return interleaved ? at::stack({new_a, new_b}, -1).flatten(-2) : at::cat({new_a, new_b}, -1);
}

void check_token_positions(const at::Tensor& x, const at::Tensor& positions) {
  checks::check_strided("rotary", "positions", positions);
  checks::check_device("rotary", "positions", positions, x.device());
  const bool integral = positions.scalar_type() == at::kLong || positions.scalar_type() == at::kInt;
  const bool is_per_token = positions.dim() == 1 && positions.size(0) == x.size(-2);
  const bool is_per_batch = positions.dim() == 2 && x.dim() > 2 && positions.size(0) == x.size(0) &&
                            positions.size(1) == x.size(-2);
  if (!integral || !(is_per_token || is_per_batch)) {
    const auto per_batch = x.dim() > 2 ? c10::str(" or [", x.size(0), ", ", x.size(-2), "]") : std::string();
    fail("rotary", "positions", c10::str("int64 or int32 [", x.size(-2), "]", per_batch),
         describe(positions));
  }
}

}  // namespace

at::Tensor rotary_frequencies(int64_t dims, const RotaryParams& params) {
  const int64_t channels = rotated_dims(dims, params);
  check_params("rotary_frequencies", channels, params);
  const auto n = static_cast<double>(channels);
  // With two channels the only frequency is 1, whatever the base.
  const double base = params.scaling == RotaryScaling::ntk && channels > 2
                          ? params.base * std::pow(params.factor, n / (n - 2))
                          : params.base;
  auto frequencies = at::empty({channels / 2}, at::kDouble);
  auto* frequency = frequencies.mutable_data_ptr<double>();
  for (int64_t i = 0; i < channels / 2; ++i) {
    frequency[i] = std::pow(base, -2 * static_cast<double>(i) / n);
    if (params.scaling == RotaryScaling::linear) frequency[i] /= params.factor;
    if (params.scaling == RotaryScaling::yarn) {
      const double interpolated = YarnRamp(n, params)(static_cast<double>(i));
      frequency[i] *= interpolated / params.factor + (1 - interpolated);
    }
  }
  return frequencies;
}

at::Tensor rotary(const at::Tensor& x, const RotaryParams& params, const at::Tensor& positions) {
  checks::check_strided("rotary", "x", x);
  checks::check_floating("rotary", "x", x);
  if (x.dim() < 2 || x.dim() > 4) fail("rotary", "x", "[B, H, L, D], [B, L, D] or [L, D]", describe(x));
  const int64_t dims = rotated_dims(x.size(-1), params);
  check_params("rotary", dims, params);
  if (dims > x.size(-1)) {
    fail("rotary", "dims", c10::str("at most the ", x.size(-1), " channels of x"), c10::str(dims));
  }
  if (positions.defined()) check_token_positions(x, positions);

  const auto angles = angles_of(x, dims, params, positions);
  const auto rotated = rotated_pairs(x.slice(-1, 0, dims).to(angles.cos.scalar_type()), angles, params.layout)
                           .to(x.scalar_type());
  return dims == x.size(-1) ? rotated : at::cat({rotated, x.slice(-1, dims)}, -1);
}

}  // namespace attend
