#pragma once

#include <ATen/autocast_mode.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

namespace attend::testing {

/// Returns the largest absolute difference, in float64; 0 for empty tensors. Fails the test for different
/// shapes or a NaN.
inline double max_difference(const torch::Tensor& left, const torch::Tensor& right) {
  EXPECT_EQ(left.sizes(), right.sizes());
  if (left.sizes() != right.sizes()) return INFINITY;
  if (left.numel() == 0) return 0;
  // The difference of equal infinities counts as 0.
  const auto a = left.detach().to(torch::kDouble), b = right.detach().to(torch::kDouble);
  const auto difference = torch::where(a == b, 0.0, (a - b).abs()).max().item<double>();
  EXPECT_FALSE(std::isnan(difference)) << "one side has a NaN";
  return std::isnan(difference) ? INFINITY : difference;
}

inline void expect_close(const torch::Tensor& left, const torch::Tensor& right, double tolerance,
                         const std::string& what = "") {
  EXPECT_LE(max_difference(left, right), tolerance) << what;
}

inline bool same_bits(const torch::Tensor& left, const torch::Tensor& right) {
  return left.sizes() == right.sizes() && left.scalar_type() == right.scalar_type() &&
         torch::equal(left, right);
}

/// Returns the unit roundoff, half the distance from 1 to the next larger number of the dtype.
inline double unit_roundoff(torch::ScalarType dtype) {
  return std::pow(2.0, dtype == torch::kDouble     ? -53
                       : dtype == torch::kFloat    ? -24
                       : dtype == torch::kBFloat16 ? -8
                                                   : -11);
}

/// Expects that `ours` is as accurate as straightforward code of the same dtype, whose error is
/// `plain_error`. The error may be at most `factor` times as large, plus a few roundings of the largest
/// value, and of the size `terms` of the summands, which may cancel and are float32 or float64 for every
/// dtype. The largest value counts as at least 1, the order of the inputs of the tests.
inline void expect_as_accurate(const torch::Tensor& ours, double plain_error, const torch::Tensor& exact,
                               double factor, const std::string& what, double terms = 1) {
  EXPECT_EQ(ours.sizes(), exact.sizes()) << what;
  if (exact.numel() == 0) return;
  const auto dtype = ours.scalar_type(), of_sums = dtype == torch::kDouble ? dtype : torch::kFloat;
  const double largest = std::max(1.0, exact.masked_fill(exact.isinf(), 0).abs().max().item<double>());
  const double roundings = std::max(unit_roundoff(dtype) * largest, unit_roundoff(of_sums) * terms);
  EXPECT_LE(max_difference(ours, exact), factor * plain_error + 4 * roundings) << what;
}

/// Enables autocast for the CPU during its lifetime.
class Autocast {
 public:
  explicit Autocast(torch::ScalarType dtype) : before_(at::autocast::get_autocast_dtype(at::kCPU)) {
    at::autocast::set_autocast_dtype(at::kCPU, dtype);
    at::autocast::set_autocast_enabled(at::kCPU, true);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;
  ~Autocast() {
    at::autocast::set_autocast_enabled(at::kCPU, false);
    at::autocast::set_autocast_dtype(at::kCPU, before_);
    at::autocast::clear_cache();
  }

 private:
  torch::ScalarType before_;
};

/// Returns the message of the c10::Error that the call throws. Fails the test if the call throws none.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  ADD_FAILURE() << "no c10::Error was thrown";
  return "";
}

/// Returns d loss / d input by central differences, element by element, for a float64 input of `loss`.
inline torch::Tensor numeric_gradient(const std::function<torch::Tensor()>& loss, torch::Tensor input) {
  torch::NoGradGuard no_grad;
  const double step = 1e-6;
  auto gradient = torch::zeros_like(input);
  auto values = input.view({-1}), slopes = gradient.view({-1});
  for (int64_t i = 0; i < values.numel(); ++i) {
    const double value = values[i].item<double>();
    values[i] = value + step;
    const double above = loss().item<double>();
    values[i] = value - step;
    const double below = loss().item<double>();
    values[i] = value;
    slopes[i] = (above - below) / (2 * step);
  }
  return gradient;
}

/// Compares the gradients of `loss` with central differences.
inline void expect_gradients(const std::function<torch::Tensor()>& loss,
                             const std::vector<torch::Tensor>& inputs, double tolerance = 1e-7) {
  const auto gradients = torch::autograd::grad({loss()}, inputs);
  for (size_t n = 0; n < inputs.size(); ++n) {
    expect_close(gradients[n], numeric_gradient(loss, inputs[n]), tolerance, "input " + std::to_string(n));
  }
}

}  // namespace attend::testing
