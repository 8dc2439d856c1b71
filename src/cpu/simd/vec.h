#pragma once

// Vectors of the instruction set that a file is compiled for, by the compiler's vector extension: arithmetic,
// comparison and `?:` work lane by lane. Everything is in an anonymous namespace, and no inline function of
// the standard library is called: the linker must not share code between instruction sets.

#include <cstdint>

#include "cpu/simd/sizes.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

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
/// Integer lanes whose sums wrap around.
template <typename T>
using VecUnsigned = typename VecOf<T>::unsigned_bits;

/// The number of lanes of a vector of T.
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
inline Vec<T> broadcast(T value) {
  return value - Vec<T>{};
}

template <typename T>
constexpr T kInfinity = static_cast<T>(__builtin_inff());

/// Returns `size` rounded up to whole vectors.
template <typename T>
constexpr int64_t padded(int64_t size) {
  return round_up(size, kLanes<T>);
}

/// Returns the vector 0, 1, 2, ...
template <typename T>
inline Vec<T> lane_indices() {
  Vec<T> values;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) values[lane] = static_cast<T>(lane);
  return values;
}

/// Loads a V, which is Vec<T> or, where fewer elements than a vector are left, T.
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

/// The type in which products of T are accumulated.
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

/// Returns a vector whose lane n is lane indices[n] of the concatenation of a and b. The indices must be
/// constants.
template <typename T>
[[gnu::always_inline]] inline Vec<T> shuffle(Vec<T> a, Vec<T> b, VecBits<T> indices) {
#if defined(__clang__)
  Vec<T> result;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    result[lane] = indices[lane] < kLanes<T> ? a[indices[lane]] : b[indices[lane] - kLanes<T>];
  }
  return result;
#else
  return __builtin_shuffle(a, b, indices);
#endif
}

/// Returns the lower or upper half of the interleaved lanes a0 b0 a1 b1 ...
template <typename T, bool upper>
inline Vec<T> interleave(Vec<T> a, Vec<T> b) {
  constexpr auto kFirst = static_cast<typename VecOf<T>::Bits>(upper ? kLanes<T> / 2 : 0);
  VecBits<T> indices;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    const auto from = static_cast<typename VecOf<T>::Bits>(lane / 2) + kFirst;
    indices[lane] = lane % 2 == 0 ? from : from + static_cast<typename VecOf<T>::Bits>(kLanes<T>);
  }
  return shuffle<T>(a, b, indices);
}

/// Returns a vector whose lane n is lane (n + count) % kLanes of a.
template <typename T, int64_t count>
inline Vec<T> rotate(Vec<T> a) {
  VecBits<T> indices;
  for (int64_t lane = 0; lane < kLanes<T>; ++lane) {
    indices[lane] = static_cast<typename VecOf<T>::Bits>((lane + count) % kLanes<T>);
  }
  return shuffle<T>(a, a, indices);
}

/// Returns the sum of the lanes.
template <typename T, int64_t half = kLanes<T> / 2>
inline T sum(Vec<T> a) {
  if constexpr (half == 0) {
    return a[0];
  } else {
    return sum<T, half / 2>(a + rotate<T, half>(a));
  }
}

/// Adds lanes that are `half` apart, then lanes at half this distance, down to a distance of four.
template <typename T, int64_t half>
inline Vec<T> fold(Vec<T> sums) {
  if constexpr (half < 4) {
    return sums;
  } else {
    return fold<T, half / 2>(sums + rotate<T, half>(sums));
  }
}

/// Returns the sums of the lanes of a, b, c and d in the first four lanes; every following group of four
/// lanes repeats them.
template <typename T>
inline Vec<T> four_sums(Vec<T> a, Vec<T> b, Vec<T> c, Vec<T> d) {
  const Vec<T> sums_ac = interleave<T, false>(a, c) + interleave<T, true>(a, c);
  const Vec<T> sums_bd = interleave<T, false>(b, d) + interleave<T, true>(b, d);
  return fold<T, kLanes<T> / 2>(interleave<T, false>(sums_ac, sums_bd) +
                                interleave<T, true>(sums_ac, sums_bd));
}

}  // namespace
}  // namespace attend::cpu
