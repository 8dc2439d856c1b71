#pragma once

// tanh of vectors, and with it the soft cap of scores.

#include "cpu/simd/vec.h"

namespace attend::cpu {
namespace {

template <typename T>
constexpr T reciprocal_factorial(int n) {
  T product = 1;
  for (int k = 2; k <= n; ++k) product *= static_cast<T>(k);
  return 1 / product;
}

/// How a number is split into n ln 2 + r.
template <typename T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float log2_e = 1.44269504F, ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
  static constexpr float round = 12582912.0F;  // 1.5 * 2^23: n stands in the low bits of n + round
  static constexpr int mantissa_bits = 23, exponent_bias = 127, terms = 7;
  static constexpr float saturates = 20;  // from tanh(saturates / 2) on the result rounds to 1
};
template <>
struct ExpConstants<double> {
  static constexpr double log2_e = 1.4426950408889634, ln2_high = 6.93145751953125e-1,
                          ln2_low = 1.42860682030941723212e-6;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa_bits = 52, exponent_bias = 1023, terms = 13;
  static constexpr double saturates = 44;
};

/// t / (t + 2) of t = exp(2 |x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1), where exp(r) - 1 by its Taylor
/// polynomial loses nothing where x is small. To about two units in the last place; NaN stays NaN.
template <typename T>
inline Vec<T> tanh(Vec<T> x) {
  using C = ExpConstants<T>;
  using Unsigned = VecUnsigned<T>;
  const Vec<T> doubled = (x < 0 ? -x : x) * 2;
  const Vec<T> clamped = doubled > C::saturates ? all(C::saturates) : doubled;
  const Vec<T> shifted = clamped * C::log2_e + C::round;
  const Vec<T> n = shifted - C::round;
  const Vec<T> r = (clamped - n * C::ln2_high) - n * C::ln2_low;
  auto series = all(reciprocal_factorial<T>(C::terms));
  for (int k = C::terms - 1; k >= 2; --k) series = series * r + reciprocal_factorial<T>(k);
  const Vec<T> rest = series * (r * r) + r;
  const auto exponent = (reinterpret_cast<Unsigned>(shifted) + C::exponent_bias) << C::mantissa_bits;
  const auto power = reinterpret_cast<Vec<T>>(exponent);
  const Vec<T> t = power * rest + (power - 1);
  const Vec<T> result = t / (t + 2);
  return x < 0 ? -result : result;
}

}  // namespace
}  // namespace attend::cpu
