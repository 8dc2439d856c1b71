#pragma once

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2 (range reduction by Cody and Waite 1980). Results
// below the smallest normal number are 0; the exponential of NaN is NaN.

#include "cpu/simd/vec.h"

namespace attend::cpu {
namespace {

/// Constants of the range reduction x = n ln 2 + r.
template <typename T>
struct ExpConstants;
template <>
struct ExpConstants<float> {
  static constexpr float log2_e = 1.44269504F, ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
  static constexpr float round = 12582912.0F;  // 1.5 * 2^23: the low bits of n + round are the integer n
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
};
template <>
struct ExpConstants<double> {
  static constexpr double log2_e = 1.4426950408889634, ln2_high = 6.93145751953125e-1,
                          ln2_low = 1.42860682030941723212e-6;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
};

/// Returns 2^n value for n in -126 ... 127, and 0 where x < lowest, for every n. `shifted` is n + 1.5 * 2^23.
inline Vec<float> times_power_of_two(Vec<float> value, [[maybe_unused]] Vec<float> n,
                                     [[maybe_unused]] Vec<float> shifted, Vec<float> x, float lowest) {
#if defined(__AVX512F__)
  const auto is_normal = _mm512_cmp_ps_mask(x, broadcast(lowest), _CMP_NLT_US);
  return _mm512_maskz_scalef_ps(is_normal, value, n);
#else
  const auto power = reinterpret_cast<VecUnsigned<float>>(shifted) << 23;
  const auto result = reinterpret_cast<Vec<float>>(reinterpret_cast<VecUnsigned<float>>(value) + power);
  return x < lowest ? Vec<float>{}
         : x == x   ? result
                    : x;  // the sum of a NaN's bits could be a finite value's bits
#endif
}

/// Returns exp(x) for x <= 88, to about one unit in the last place. exp(r) is the polynomial of degree six
/// with the smallest relative error, 3.1e-9.
inline Vec<float> exp_without_overflow(Vec<float> x) {
  using C = ExpConstants<float>;
  constexpr float kLowest = -87.336F;
  const auto shifted = x * C::log2_e + C::round;
  const auto n = shifted - C::round;
  const auto r = (x - n * C::ln2_high) - n * C::ln2_low;
  auto p = broadcast(0.00138145986467F);
  p = p * r + 0.00836871687973F;
  p = p * r + 0.0416683880453F;
  p = p * r + 0.166665206317F;
  p = p * r + 0.499999934478F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return times_power_of_two(p, n, shifted, x, kLowest);
}

/// Returns exp(x); infinity above 88.
inline Vec<float> exp(Vec<float> x) {
  constexpr float kHighest = 88.0F;
  const auto result = exp_without_overflow(x > kHighest ? broadcast(kHighest) : x);
  return x > kHighest ? broadcast(__builtin_inff()) : result;
}

/// Returns exp(x); infinity above 709.43. exp(r) is its Taylor polynomial of degree thirteen.
inline Vec<double> exp(Vec<double> x) {
  using C = ExpConstants<double>;
  constexpr double kLowest = -708.39, kHighest = 709.43;
  const auto shifted = x * C::log2_e + C::round;
  const auto n = shifted - C::round;
  const auto r = (x - n * C::ln2_high) - n * C::ln2_low;
  auto p = broadcast(1.0 / 6227020800);
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * (r * r) + (r + 1.0);
  const auto power = reinterpret_cast<VecUnsigned<double>>(shifted) << C::mantissa_bits;
  const auto sum = reinterpret_cast<Vec<double>>(reinterpret_cast<VecUnsigned<double>>(p) + power);
  const auto result = p == p ? sum : p;  // the sum of a NaN's bits could be a finite value's bits
  return x < kLowest ? Vec<double>{} : x > kHighest ? broadcast(__builtin_inf()) : result;
}

/// Returns exp(x) for x <= 709.
inline Vec<double> exp_without_overflow(Vec<double> x) { return exp(x); }

}  // namespace
}  // namespace attend::cpu
