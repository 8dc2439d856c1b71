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
  typedef uint32_t unsigned_bits __attribute__((vector_size(kVectorBytes)));
};
template <>
struct VecOf<double> {
  using Bits = int64_t;
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t bits __attribute__((vector_size(kVectorBytes)));
  typedef uint64_t unsigned_bits __attribute__((vector_size(kVectorBytes)));
};

template <typename T>
using Vec = typename VecOf<T>::type;
template <typename T>
using VecBits = typename VecOf<T>::bits;
/// For sums that may be of any bits: they wrap around.
template <typename T>
using VecUnsigned = typename VecOf<T>::unsigned_bits;

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

/// 0, 1, 2, ...
template <typename T>
inline Vec<T> lane_numbers() {
  Vec<T> numbers;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) numbers[lane] = static_cast<T>(lane);
  return numbers;
}

/// V is a vector, or its element type where there is no whole vector.
template <typename V, typename T>
inline V load_as(const T* from) {
  if constexpr (sizeof(V) == sizeof(T)) {
    return *from;
  } else {
    return load(from);
  }
}

template <typename T>
inline void store_as(T* to, Vec<T> value) {
  store(to, value);
}
template <typename T>
inline void store_as(T* to, T value) {
  *to = value;
}

/// The type that products of T are added up in.
template <typename T>
struct SumOf {
  using type = T;
};
template <typename T>
using Sum = typename SumOf<T>::type;

template <typename T>
inline void add_product(Vec<Sum<T>>& sum, Vec<T> a, Vec<T> b) {
  sum += a * b;
}

template <typename T>
inline Vec<T> larger(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

/// Lane n of the result is lane places[n] of a, or from kLanes on of b; the places are constants.
template <typename T>
[[gnu::always_inline]] inline Vec<T> shuffle(Vec<T> a, Vec<T> b, VecBits<T> places) {
#if defined(__clang__)
  Vec<T> result;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    result[lane] = places[lane] < kLanes<T> ? a[places[lane]] : b[places[lane] - kLanes<T>];
  }
  return result;
#else
  return __builtin_shuffle(a, b, places);
#endif
}

/// The lanes of a and b side by side, a0 b0 a1 b1 ...: the lower half of them, or the upper.
template <typename T, bool upper>
inline Vec<T> interleave(Vec<T> a, Vec<T> b) {
  constexpr auto kFirst = static_cast<typename VecOf<T>::Bits>(upper ? kLanes<T> / 2 : 0);
  VecBits<T> places;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    const auto from = static_cast<typename VecOf<T>::Bits>(lane / 2) + kFirst;
    places[lane] = lane % 2 == 0 ? from : from + static_cast<typename VecOf<T>::Bits>(kLanes<T>);
  }
  return shuffle<T>(a, b, places);
}

/// The lanes moved down by `count`, those that fall out put on top.
template <typename T, int64_t count>
inline Vec<T> rotate(Vec<T> a) {
  VecBits<T> places;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    places[lane] = static_cast<typename VecOf<T>::Bits>((lane + count) % kLanes<T>);
  }
  return shuffle<T>(a, a, places);
}

/// The sum of the lanes.
template <typename T, int64_t half = kLanes<T> / 2>
inline T sum(Vec<T> a) {
  if constexpr (half == 0) {
    return a[0];
  } else {
    return sum<T, half / 2>(a + rotate<T, half>(a));
  }
}

/// Adds up lanes `half` apart, then half of that, down to four.
template <typename T, int64_t half>
inline Vec<T> fold(Vec<T> sums) {
  if constexpr (half < 4) {
    return sums;
  } else {
    return fold<T, half / 2>(sums + rotate<T, half>(sums));
  }
}

/// The sums over the lanes of four vectors, in the first four lanes and in every four after them.
template <typename T>
inline Vec<T> four_sums(Vec<T> a, Vec<T> b, Vec<T> c, Vec<T> d) {
  const Vec<T> of_ac = interleave<T, false>(a, c) + interleave<T, true>(a, c);
  const Vec<T> of_bd = interleave<T, false>(b, d) + interleave<T, true>(b, d);
  return fold<T, kLanes<T> / 2>(interleave<T, false>(of_ac, of_bd) + interleave<T, true>(of_ac, of_bd));
}

/// 2^n value, for n of -126 ... 127, and 0 where x < lowest, whatever n is; `shifted` is n + 1.5 * 2^23.
inline Vec<float> times_power_of_two(Vec<float> value, [[maybe_unused]] Vec<float> n,
                                     [[maybe_unused]] Vec<float> shifted, Vec<float> x, float lowest) {
#if defined(__AVX512F__)
  constexpr int kNotLess = 5, kCurrentRounding = 4;
  const auto mask = __builtin_ia32_cmpps512_mask(x, all(lowest), kNotLess, -1, kCurrentRounding);
  return __builtin_ia32_scalefps512_mask(value, n, Vec<float>{}, mask, kCurrentRounding);
#else
  const auto power = reinterpret_cast<VecUnsigned<float>>(shifted) << 23;
  const auto result = reinterpret_cast<Vec<float>>(reinterpret_cast<VecUnsigned<float>>(value) + power);
  return x < lowest ? Vec<float>{} : x == x ? result : x;  // the bits of a NaN could become a number's
#endif
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2. exp(r) by the polynomial 1 + r + ... of the
// sixth degree with the least relative error, 3.1e-9: to about one unit in the last place. Where the result
// would be below the smallest normal number it is 0; NaN stays NaN.

/// For x <= 88.
inline Vec<float> exp_without_overflow(Vec<float> x) {
  constexpr float kLowest = -87.336F;
  const auto shifted = x * 1.44269504F + 12582912.0F;  // 1.5 * 2^23: n stands in the low bits
  const auto n = shifted - 12582912.0F;
  const auto r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  auto p = all(0.00138145986467F);
  p = p * r + 0.00836871687973F;
  p = p * r + 0.0416683880453F;
  p = p * r + 0.166665206317F;
  p = p * r + 0.499999934478F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  return times_power_of_two(p, n, shifted, x, kLowest);
}

/// Infinite above 88.
inline Vec<float> exp(Vec<float> x) {
  constexpr float kHighest = 88.0F;
  const auto result = exp_without_overflow(x > kHighest ? all(kHighest) : x);
  return x > kHighest ? all(__builtin_inff()) : result;
}

inline Vec<double> exp(Vec<double> x) {
  constexpr double kLowest = -708.39, kHighest = 709.43;
  const auto shifted = x * 1.4426950408889634 + 6755399441055744.0;  // 1.5 * 2^52
  const auto n = shifted - 6755399441055744.0;
  const auto r = (x - n * 6.93145751953125e-1) - n * 1.42860682030941723212e-6;
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
  const auto power = reinterpret_cast<VecUnsigned<double>>(shifted) << 52;
  const auto sum = reinterpret_cast<Vec<double>>(reinterpret_cast<VecUnsigned<double>>(p) + power);
  const auto result = p == p ? sum : p;  // the bits of a NaN could become a number's
  return x < kLowest ? Vec<double>{} : x > kHighest ? all(__builtin_inf()) : result;
}

/// For x <= 709.
inline Vec<double> exp_without_overflow(Vec<double> x) { return exp(x); }

}  // namespace
}  // namespace attend::cpu
