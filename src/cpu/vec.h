#pragma once

// Vectors of the instruction set that a file is compiled for, by the compiler's vector extension: arithmetic,
// comparison and `?:` work on them lane by lane. Everything is in an anonymous namespace and nothing of the
// standard library is inlined: the linker must not share code between instruction sets.

#include <cstdint>

namespace attend::cpu {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <typename T>
struct VecOf;
template <>
struct VecOf<float> {
  using Bits = int32_t;
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecOf<double> {
  using Bits = int64_t;
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t bits __attribute__((vector_size(kVectorBytes)));
};

template <typename T>
using Vec = typename VecOf<T>::type;
template <typename T>
using VecBits = typename VecOf<T>::bits;

/// Lanes of a vector.
template <typename T>
constexpr int64_t kLanes = kVectorBytes / static_cast<int64_t>(sizeof(T));

template <typename T>
inline Vec<T> load(const T* from) {
  return *reinterpret_cast<const typename VecOf<T>::unaligned*>(from);
}

template <typename T>
inline void store(T* to, Vec<T> value) {
  *reinterpret_cast<typename VecOf<T>::unaligned*>(to) = value;
}

template <typename T>
inline Vec<T> all(T value) {
  return value - Vec<T>{};
}

template <typename T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

template <typename T>
inline T sum(Vec<T> v) {
  T total = 0;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) total += v[lane];
  return total;
}

template <typename T>
inline T largest(Vec<T> v) {
  T found = v[0];
  for (int64_t lane = 1; lane < kLanes<T>; ++lane) found = v[lane] > found ? v[lane] : found;
  return found;
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) by its Taylor polynomial, to about one
// unit in the last place. Where the result would be below the smallest normal number it is 0, where n would
// overflow it is infinite; NaN stays NaN.
inline Vec<float> exp(Vec<float> x) {
  constexpr float kLowest = -87.336F, kHighest = 88.376F;
  const auto clamped = x < kLowest ? all(kLowest) : x;
  const auto shifted = clamped * 1.44269504F + 12582912.0F;  // 1.5 * 2^23: n stands in the low bits
  const auto n = shifted - 12582912.0F;
  const auto r = (clamped - n * 0.693359375F) - n * -2.12194440e-4F;
  auto p = all(1.0F / 5040);
  p = p * r + 1.0F / 720;
  p = p * r + 1.0F / 120;
  p = p * r + 1.0F / 24;
  p = p * r + 1.0F / 6;
  p = p * r + 0.5F;
  p = p * (r * r) + (r + 1.0F);
  const auto power = reinterpret_cast<VecBits<float>>(shifted) << 23;
  const auto result = reinterpret_cast<Vec<float>>(reinterpret_cast<VecBits<float>>(p) + power);
  return x < kLowest ? Vec<float>{} : x > kHighest ? all(__builtin_inff()) : result;
}

inline Vec<double> exp(Vec<double> x) {
  constexpr double kLowest = -708.39, kHighest = 709.43;
  const auto clamped = x < kLowest ? all(kLowest) : x;
  const auto shifted = clamped * 1.4426950408889634 + 6755399441055744.0;  // 1.5 * 2^52
  const auto n = shifted - 6755399441055744.0;
  const auto r = (clamped - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
  auto p = all(1.0 / 6227020800);
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
  const auto power = reinterpret_cast<VecBits<double>>(shifted) << 52;
  const auto result = reinterpret_cast<Vec<double>>(reinterpret_cast<VecBits<double>>(p) + power);
  return x < kLowest ? Vec<double>{} : x > kHighest ? all(__builtin_inf()) : result;
}

}  // namespace
}  // namespace attend::cpu
