#pragma once

#include <fmt/ranges.h>

#include <string>

#include "row.h"

namespace attend::benchmarks {

/// Returns the allowed relative error: eight units of the dtype's precision. For float32 the unit is 2^-20,
/// the error of the exponential in ATen's forward kernel.
inline double tolerance(torch::ScalarType dtype) {
  return 8 * std::pow(2.0, dtype == torch::kBFloat16 ? -8 : dtype == torch::kHalf ? -11 : -20);
}

/// Returns the error of a result relative to its largest element, as text; empty if it is within the
/// tolerance.
inline std::string difference(const torch::Tensor& result, const torch::Tensor& expected) {
  if (result.sizes() != expected.sizes())
    return fmt::format("{} instead of {}", result.sizes(), expected.sizes());
  const auto ours = result.to(torch::kDouble), baseline = expected.to(torch::kDouble);
  const double largest = baseline.abs().max().item<double>();
  const double error = (ours - baseline).abs().max().item<double>() / largest;
  // The tolerance is that of the coarser dtype. A NaN fails the comparison.
  const double allowed = std::max(tolerance(result.scalar_type()), tolerance(expected.scalar_type()));
  return error <= allowed ? "" : fmt::format("off by {:.1e} of the largest element", error);
}

/// Returns the first error among the results of `ours`, as text; empty if all results are right.
inline std::string verify(const Sides& sides) {
  const auto ours = sides.ours();
  const auto expected = sides.expected ? sides.expected() : sides.baseline();
  if (ours.size() != expected.size())
    return fmt::format("{} results instead of {}", ours.size(), expected.size());
  for (size_t n = 0; n < ours.size(); ++n) {
    const auto wrong = difference(ours[n], expected[n]);
    if (!wrong.empty()) return fmt::format("result {} is {}", n, wrong);
  }
  return {};
}

}  // namespace attend::benchmarks
