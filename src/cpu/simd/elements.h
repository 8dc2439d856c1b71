#pragma once

// The element types of tensors, and their conversion to and from the compute type.

#include <cstdint>

namespace attend::cpu {
namespace {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

template <typename Element>
struct ComputeOf {
  using type = float;
};
template <>
struct ComputeOf<double> {
  using type = double;
};
/// The compute type of an element type: double for double, float for all others.
template <typename Element>
using Compute = typename ComputeOf<Element>::type;

inline float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }
inline uint32_t bits_of(float value) { return __builtin_bit_cast(uint32_t, value); }

inline double widen(double value) { return value; }
inline float widen(float value) { return value; }
inline float widen(BFloat16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }
inline float widen(Half value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fff) << 13;
  // The multiplication changes the exponent's bias from 15 to 127 and normalises subnormal numbers.
  const uint32_t finite = bits_of(float_of(magnitude) * 0x1p112F);
  return float_of(sign | (magnitude >= 0x7c00U << 13 ? magnitude | 0x7f800000U : finite));
}

inline void narrow(double value, double& to) { to = value; }
inline void narrow(float value, float& to) { to = value; }
inline void narrow(float value, BFloat16& to) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to the nearest, ties to even
  to.bits = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}
inline void narrow(float value, Half& to) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  // Normal numbers: rebias the exponent and round to the nearest, ties to even, in integers.
  const uint32_t normal = (magnitude - (112U << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Subnormal numbers: the sum with 0.5 is rounded to a multiple of 2^-24, the smallest subnormal Half.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5F) - bits_of(0.5F);
  uint32_t half = magnitude < (113U << 23) ? subnormal : normal;
  if (magnitude >= 0x477ff000U) half = 0x7c00;  // rounds to infinity
  if (magnitude > 0x7f800000U) half = 0x7e00;   // NaN
  to.bits = static_cast<uint16_t>(sign | half);
}

}  // namespace
}  // namespace attend::cpu
