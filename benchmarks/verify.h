#pragma once

#include <fmt/format.h>

#include <string>

#include "row.h"

namespace attend::benchmarks {

/// A few roundings of the dtype; in float32 of ATen's exp, which its forward kernel computes to 20 bits.
inline double tolerance(torch::ScalarType dtype) {
  return 8 * std::pow(2.0, dtype == torch::kBFloat16 ? -8 : dtype == torch::kHalf ? -11 : -20);
}

/// What is wrong with the result, measured against its largest number; empty where nothing is.
inline std::string difference(const torch::Tensor& result, const torch::Tensor& expected) {
  if (result.sizes() != expected.sizes())
    return fmt::format("{} instead of {}", result.sizes(), expected.sizes());
  const auto ours = result.to(torch::kDouble), theirs = expected.to(torch::kDouble);
  const double largest = theirs.abs().max().item<double>();
  const double error = (ours - theirs).abs().max().item<double>() / largest;
  // Of the coarser dtype, where they differ. A NaN is not below the tolerance either.
  const double allowed = std::max(tolerance(result.scalar_type()), tolerance(expected.scalar_type()));
  return error <= allowed ? "" : fmt::format("off by {:.1e} of the largest number", error);
}

/// What is wrong with our results; empty where nothing is.
inline std::string verify(const Sides& sides) {
  const auto ours = sides.ours();
  const auto expected = sides.expected ? sides.expected() : sides.theirs();
  if (ours.size() != expected.size()) return "another number of results";
  for (size_t n = 0; n < ours.size(); ++n) {
    const auto wrong = difference(ours[n], expected[n]);
    if (!wrong.empty()) return fmt::format("result {} is {}", n, wrong);
  }
  return {};
}

}  // namespace attend::benchmarks
