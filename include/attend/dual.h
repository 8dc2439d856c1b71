#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace attend {

/// A dual number: a value with its derivative with respect to the score, the first argument of a lambda on
/// scores. Arithmetic and comparison work between dual numbers and with plain numbers; the functions `exp`,
/// `log`, `tanh` and `abs` of dual numbers are defined below. T is float, double, or Dual<double>, which
/// carries the second derivative.
template <typename T>
struct Dual {
  T value{};       ///< the value
  T derivative{};  ///< the derivative of the value with respect to the score

  /// The constant 0.
  constexpr Dual() = default;
  /// A value and its derivative.
  constexpr Dual(T primal, T tangent) : value(primal), derivative(tangent) {}
  /// A constant, whose derivative is 0.
  template <typename Number>
    requires std::is_arithmetic_v<Number>
  constexpr Dual(Number number) : value(static_cast<T>(number)) {}  // NOLINT(google-explicit-constructor)

  /// Adds, in place.
  constexpr Dual& operator+=(Dual other) { return *this = *this + other; }
  /// Subtracts, in place.
  constexpr Dual& operator-=(Dual other) { return *this = *this - other; }
  /// Multiplies, in place.
  constexpr Dual& operator*=(Dual other) { return *this = *this * other; }
  /// Divides, in place.
  constexpr Dual& operator/=(Dual other) { return *this = *this / other; }

  /// -a
  friend constexpr Dual operator-(Dual a) { return {-a.value, -a.derivative}; }
  /// a + b, with derivative a' + b'
  friend constexpr Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.derivative + b.derivative}; }
  /// a - b, with derivative a' - b'
  friend constexpr Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.derivative - b.derivative}; }
  /// a b, with derivative a' b + a b'
  friend constexpr Dual operator*(Dual a, Dual b) {
    return {a.value * b.value, a.derivative * b.value + a.value * b.derivative};
  }
  /// a / b, with derivative (a' - (a / b) b') / b
  friend constexpr Dual operator/(Dual a, Dual b) {
    const T quotient = a.value / b.value;
    return {quotient, (a.derivative - quotient * b.derivative) / b.value};
  }

  /// a.value == b.value
  friend constexpr bool operator==(Dual a, Dual b) { return a.value == b.value; }
  /// a.value < b.value
  friend constexpr bool operator<(Dual a, Dual b) { return a.value < b.value; }
  /// a.value > b.value
  friend constexpr bool operator>(Dual a, Dual b) { return a.value > b.value; }
  /// a.value <= b.value
  friend constexpr bool operator<=(Dual a, Dual b) { return a.value <= b.value; }
  /// a.value >= b.value
  friend constexpr bool operator>=(Dual a, Dual b) { return a.value >= b.value; }
};

namespace detail {

/// The constants of a floating-point type for the functions below.
template <typename T>
struct Real;
template <>
struct Real<float> {
  using Bits = int32_t;
  static constexpr float log2_e = 1.44269504F, ln2_high = 0.693359375F, ln2_low = -2.12194440e-4F;
  static constexpr float round = 12582912.0F;  // 1.5 * 2^23: the low bits of n + round are the integer n
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

// Selections below compare integers, never floating-point values: a floating-point comparison may trap, so
// compilers turn a selection by it into a branch, which they do not vectorise.

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

/// Returns x, or 0 if x is infinite or NaN: the product of such a derivative and a gradient of 0 would be
/// NaN.
template <std::floating_point T>
inline T finite_or_zero(T x) {
  return choose(bits_of(std::fabs(x)) < kInfinityBits<T>, x, T{0});
}

/// Returns x clamped to [-limit, limit]; NaN for NaN.
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

/// Computes n = round(x / ln 2) and rest = exp(r) - 1 by its Taylor polynomial, with r = x - n ln 2, |r| <=
/// ln 2 / 2. |x| must be at most exp_limit.
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

/// Returns log(x) / (2 s) - 1 = s^2 / 3 + s^4 / 5 + ..., given s^2, where x = (1 + s) / (1 - s) is in
/// sqrt(1/2) ... sqrt(2).
template <std::floating_point T>
inline T log_series(T squared) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return squared * polynomial<T>(squared, 1.0F / 11, 1.0F / 9, 1.0F / 7, 1.0F / 5, 1.0F / 3);
  } else {
    return squared * polynomial<T>(squared, 1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                                   1.0 / 11, 1.0 / 9, 1.0 / 7, 1.0 / 5, 1.0 / 3);
  }
}

// Elementary functions, accurate to three units in the last place over the whole range, written so that
// compilers vectorise loops over them.

/// exp(x) = 2^n (1 + rest)
template <std::floating_point T>
inline T exp(T x) {
  const auto [n, rest] = exp_parts(clamp_magnitude(x, Real<T>::exp_limit));
  const auto half = n >> 1;  // 2^n may overflow or underflow, its two factors do not
  return (1 + rest) * power_of_two<T>(half) * power_of_two<T>(n - half);
}

/// tanh(|x|) = t / (t + 2), t = exp(2 |x|) - 1 = 2^n rest + (2^n - 1)
template <std::floating_point T>
inline T tanh(T x) {
  const auto [n, rest] = exp_parts(2 * clamp_magnitude(std::fabs(x), Real<T>::tanh_limit));
  const T power = power_of_two<T>(n);
  const T t = power * rest + (power - 1);
  return std::copysign(t / (t + 2), x);
}

/// log(x) = e ln 2 + log(m), x = 2^e m, m in sqrt(1/2) ... sqrt(2)
template <std::floating_point T>
inline T log(T x) {
  using R = Real<T>;
  constexpr T kSqrtHalf = static_cast<T>(0.70710678118654752440), kInfinity = static_cast<T>(__builtin_inf());
  const T magnitude = std::fabs(x);
  const bool is_small = magnitude < R::smallest;  // subnormal numbers have fewer mantissa bits
  const T scaled = choose(is_small, magnitude * R::two_to_mantissa, magnitude);
  const auto exponent = (bits_of(scaled) - bits_of(kSqrtHalf)) >> R::mantissa_bits;
  const T m = std::bit_cast<T>(static_cast<Bits<T>>(bits_of(scaled) - (exponent << R::mantissa_bits)));
  const T e = static_cast<T>(exponent - (is_small ? R::mantissa_bits : 0));
  const T s = (m - 1) / (m + 1);
  const T log_m = 2 * s + 2 * s * log_series(s * s);
  const T finite = e * R::ln2_high + (e * R::ln2_low + log_m);
  const T positive = choose(x == kInfinity, x, finite);
  const T nonnegative = choose(x == 0, -kInfinity, positive);
  return choose(!(x >= 0), static_cast<T>(__builtin_nan("")), nonnegative);
}

/// |x|
template <std::floating_point T>
inline T abs(T x) {
  return std::fabs(x);
}

}  // namespace detail

/// The exponential function.
template <typename T>
inline Dual<T> exp(Dual<T> x) {
  using detail::exp;
  const T result = exp(x.value);
  return {result, x.derivative * result};
}

/// The natural logarithm.
template <typename T>
inline Dual<T> log(Dual<T> x) {
  using detail::log;
  return {log(x.value), x.derivative / x.value};
}

/// The hyperbolic tangent.
template <typename T>
inline Dual<T> tanh(Dual<T> x) {
  using detail::tanh;
  const T result = tanh(x.value);
  return {result, x.derivative * (1 - result * result)};
}

/// The absolute value; its derivative at 0 is 0, as in ATen.
template <typename T>
inline Dual<T> abs(Dual<T> x) {
  using detail::abs;
  return {abs(x.value), x.derivative * static_cast<T>((x.value > 0) - (x.value < 0))};
}

}  // namespace attend
