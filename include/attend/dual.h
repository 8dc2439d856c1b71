#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace attend {

/// A number that carries its derivative with respect to the score: what a lambda on scores is called with.
/// Arithmetic and comparison work on it as on a number, with other numbers too; `exp`, `log`, `tanh` and
/// `abs` below. T: float, double, or Dual<double>, which carries the second derivative.
template <typename T>
struct Dual {
  T value{};
  T derivative{};

  constexpr Dual() = default;
  constexpr Dual(T of_value, T of_derivative) : value(of_value), derivative(of_derivative) {}
  /// A constant.
  template <typename Number>
    requires std::is_arithmetic_v<Number>
  constexpr Dual(Number number) : value(static_cast<T>(number)) {}  // NOLINT(google-explicit-constructor)

  constexpr Dual& operator+=(Dual other) { return *this = *this + other; }
  constexpr Dual& operator-=(Dual other) { return *this = *this - other; }
  constexpr Dual& operator*=(Dual other) { return *this = *this * other; }
  constexpr Dual& operator/=(Dual other) { return *this = *this / other; }

  friend constexpr Dual operator-(Dual a) { return {-a.value, -a.derivative}; }
  friend constexpr Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.derivative + b.derivative}; }
  friend constexpr Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.derivative - b.derivative}; }
  friend constexpr Dual operator*(Dual a, Dual b) {
    return {a.value * b.value, a.derivative * b.value + a.value * b.derivative};
  }
  friend constexpr Dual operator/(Dual a, Dual b) {
    const T quotient = a.value / b.value;
    return {quotient, (a.derivative - quotient * b.derivative) / b.value};
  }

  friend constexpr bool operator==(Dual a, Dual b) { return a.value == b.value; }
  friend constexpr bool operator<(Dual a, Dual b) { return a.value < b.value; }
  friend constexpr bool operator>(Dual a, Dual b) { return a.value > b.value; }
  friend constexpr bool operator<=(Dual a, Dual b) { return a.value <= b.value; }
  friend constexpr bool operator>=(Dual a, Dual b) { return a.value >= b.value; }
};

namespace detail {

/// What the functions below know of a floating-point type.
template <typename T>
struct Real;
template <>
struct Real<float> {
  using Bits = int32_t;
  static constexpr float log2_e = 1.44269504F, ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
  static constexpr float round = 12582912.0F;  // 1.5 * 2^23: n stands in the low bits of n + round
  static constexpr int mantissa_bits = 23, exponent_bias = 127;
  static constexpr float smallest = 1.17549435e-38F, two_to_mantissa = 8388608;
  static constexpr float exp_limit = 110;  // beyond it exp is 0 or infinite
  static constexpr float tanh_limit = 10;  // beyond it tanh rounds to 1
};
template <>
struct Real<double> {
  using Bits = int64_t;
  static constexpr double log2_e = 1.4426950408889634, ln2_high = 6.93145751953125e-1,
                          ln2_low = 1.42860682030941723212e-6;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa_bits = 52, exponent_bias = 1023;
  static constexpr double smallest = 2.2250738585072014e-308, two_to_mantissa = 4503599627370496;
  static constexpr double exp_limit = 760;
  static constexpr double tanh_limit = 22;
};

// No comparison of floating-point numbers chooses between two ways of computing below: a compiler that has to
// keep their traps makes jumps of those, and vectors of whole numbers.

template <std::floating_point T>
using Bits = typename Real<T>::Bits;

template <std::floating_point T>
constexpr Bits<T> bits_of(T number) {
  return std::bit_cast<Bits<T>>(number);
}

template <std::floating_point T>
constexpr Bits<T> kInfinityBits = bits_of(static_cast<T>(__builtin_inf()));

template <std::floating_point T>
inline T choose(bool condition, T yes, T no) {
  const auto mask = -static_cast<Bits<T>>(condition);
  return std::bit_cast<T>(static_cast<Bits<T>>((bits_of(yes) & mask) | (bits_of(no) & ~mask)));
}

/// A derivative that is infinite or NaN counts as 0: weights of 0 would make NaN of it.
template <std::floating_point T>
inline T finite_or_zero(T x) {
  return choose(bits_of(std::fabs(x)) < kInfinityBits<T>, x, T{0});
}

/// x within -limit ... limit; NaN stays NaN.
template <std::floating_point T>
inline T clamp_magnitude(T x, T limit) {
  const auto magnitude = bits_of(std::fabs(x));
  const auto clamped = magnitude < bits_of(limit) ? magnitude : bits_of(limit);
  return choose(magnitude > kInfinityBits<T>, x, std::copysign(std::bit_cast<T>(clamped), x));
}

/// 2^n
template <std::floating_point T>
inline T power_of_two(Bits<T> n) {
  return std::bit_cast<T>(static_cast<Bits<T>>((n + Real<T>::exponent_bias) << Real<T>::mantissa_bits));
}

/// ((highest x + next) x + ...) x + last
template <std::floating_point T, typename... Coefficients>
inline T polynomial(T x, T highest, Coefficients... next) {
  ((highest = highest * x + static_cast<T>(next)), ...);
  return highest;
}

/// exp(x) = 2^n (1 + rest)
template <std::floating_point T>
struct ExpParts {
  Bits<T> n;
  T rest;
};

/// n = round(x / ln 2), rest = exp(r) - 1 by its Taylor polynomial, |r| <= ln 2 / 2. |x| <= exp_limit.
template <std::floating_point T>
inline ExpParts<T> exp_parts(T x) {
  using R = Real<T>;
  const T shifted = x * R::log2_e + R::round;
  const T n = shifted - R::round;
  const T r = (x - n * R::ln2_high) - n * R::ln2_low;
  T series = 0;
  if constexpr (sizeof(T) == sizeof(float)) {
    series = polynomial<T>(r, 1.0F / 5040, 1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F);
  } else {
    series = polynomial<T>(r, 1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880,
                           1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5);
  }
  return {bits_of(shifted) - bits_of(R::round), series * (r * r) + r};
}

/// log(x) / 2 s - 1 where x = (1 + s) / (1 - s) in sqrt(1/2) ... sqrt(2): s^2 / 3 + s^4 / 5 + ...
template <std::floating_point T>
inline T log_series(T squared) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return squared * polynomial<T>(squared, 1.0F / 11, 1.0F / 9, 1.0F / 7, 1.0F / 5, 1.0F / 3);
  } else {
    return squared * polynomial<T>(squared, 1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                                   1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3);
  }
}

}  // namespace detail

// The functions of numbers: to three units in the last place, for every number, and made so that a loop over
// them becomes vectors.

template <std::floating_point T>
inline T exp(T x) {
  const auto [n, rest] = detail::exp_parts(detail::clamp_magnitude(x, detail::Real<T>::exp_limit));
  const auto half = n >> 1;  // 2^n itself may be too large or too small
  return (1 + rest) * detail::power_of_two<T>(half) * detail::power_of_two<T>(n - half);
}

/// t / (t + 2), t = exp(2 |x|) - 1 = 2^n rest + (2^n - 1)
template <std::floating_point T>
inline T tanh(T x) {
  const auto [n, rest] =
      detail::exp_parts(2 * detail::clamp_magnitude(std::fabs(x), detail::Real<T>::tanh_limit));
  const T power = detail::power_of_two<T>(n);
  const T t = power * rest + (power - 1);
  return std::copysign(t / (t + 2), x);
}

/// log(x) = e ln 2 + log(m), x = 2^e m, m in sqrt(1/2) ... sqrt(2)
template <std::floating_point T>
inline T log(T x) {
  using R = detail::Real<T>;
  constexpr T kSqrtHalf = static_cast<T>(0.70710678118654752440), kInfinity = static_cast<T>(__builtin_inf());
  const T magnitude = std::fabs(x);
  const bool is_small = magnitude < R::smallest;  // below it there are fewer bits
  const T scaled = detail::choose(is_small, magnitude * R::two_to_mantissa, magnitude);
  const auto exponent = (detail::bits_of(scaled) - detail::bits_of(kSqrtHalf)) >> R::mantissa_bits;
  const T m = std::bit_cast<T>(
      static_cast<detail::Bits<T>>(detail::bits_of(scaled) - (exponent << R::mantissa_bits)));
  const T e = static_cast<T>(exponent - (is_small ? R::mantissa_bits : 0));
  const T s = (m - 1) / (m + 1);
  const T of_m = 2 * s + 2 * s * detail::log_series(s * s);
  const T finite = e * R::ln2_high + (e * R::ln2_low + of_m);
  const T of_positive = detail::choose(x == kInfinity, x, finite);
  const T of_zero = detail::choose(x == 0, -kInfinity, of_positive);
  return detail::choose(!(x >= 0), static_cast<T>(__builtin_nan("")), of_zero);
}

template <std::floating_point T>
inline T abs(T x) {
  return std::fabs(x);
}

template <typename T>
inline Dual<T> exp(Dual<T> x) {
  const T result = exp(x.value);
  return {result, x.derivative * result};
}

template <typename T>
inline Dual<T> log(Dual<T> x) {
  return {log(x.value), x.derivative / x.value};
}

template <typename T>
inline Dual<T> tanh(Dual<T> x) {
  const T result = tanh(x.value);
  return {result, x.derivative * (1 - result * result)};
}

/// Its derivative is 0 at 0, as ATen's.
template <typename T>
inline Dual<T> abs(Dual<T> x) {
  return {abs(x.value), x.derivative * static_cast<T>((x.value > 0) - (x.value < 0))};
}

}  // namespace attend
