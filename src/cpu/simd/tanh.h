#pragma once

// tanh(|x|) = t / (t + 2), t = exp(2 |x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1). exp(r) - 1 is a Taylor
// polynomial without constant term, so that no digits cancel where x is small. The error is about two units
// in the last place; tanh(NaN) is NaN.

#include "cpu/simd/exp.h"

namespace attend::cpu {
namespace {

template <typename T>
constexpr T reciprocal_factorial(int n) {
  T product = 1;
  for (int k = 2; k <= n; ++k) product *= static_cast<T>(k);
  return 1 / product;
}

/// The degree of the Taylor polynomial, and the value of 2 |x| from which on the result rounds to 1.
template <typename T>
struct TanhConstants;
template <>
struct TanhConstants<float> {
  static constexpr int degree = 7;
  static constexpr float saturation = 20;
};
template <>
struct TanhConstants<double> {
  static constexpr int degree = 13;
  static constexpr double saturation = 44;
};

template <typename T>
inline Vec<T> tanh(Vec<T> x) {
  using C = ExpConstants<T>;
  using Unsigned = VecUnsigned<T>;
  constexpr int kDegree = TanhConstants<T>::degree;
  constexpr T kSaturation = TanhConstants<T>::saturation;
  const Vec<T> doubled = (x < 0 ? -x : x) * 2;
  const Vec<T> clamped = doubled > kSaturation ? broadcast(kSaturation) : doubled;
  const Vec<T> shifted = clamped * C::log2_e + C::round;
  const Vec<T> n = shifted - C::round;
  const Vec<T> r = (clamped - n * C::ln2_high) - n * C::ln2_low;
  auto series = broadcast(reciprocal_factorial<T>(kDegree));
  for (int k = kDegree - 1; k >= 2; --k) series = series * r + reciprocal_factorial<T>(k);
  const Vec<T> exp_r_minus_1 = series * (r * r) + r;
  const auto exponent = (reinterpret_cast<Unsigned>(shifted) + C::exponent_bias) << C::mantissa_bits;
  const auto power = reinterpret_cast<Vec<T>>(exponent);
  const Vec<T> t = power * exp_r_minus_1 + (power - 1);
  const Vec<T> result = t / (t + 2);
  return x < 0 ? -result : result;
}

}  // namespace
}  // namespace attend::cpu
