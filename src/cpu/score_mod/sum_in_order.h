#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>

namespace attend::cpu {

/// Sums a contiguous float64 tensor over its first dimension, in order. ATen's `sum` is not used, since its
/// order depends on the number of threads.
inline at::Tensor sum_in_order(const at::Tensor& parts) {
  const auto total = at::zeros(parts.sizes().slice(1), parts.options());
  const auto* part = parts.const_data_ptr<double>();
  auto* sums = total.mutable_data_ptr<double>();
  for (int64_t n = 0; n < parts.size(0); ++n) {
    for (int64_t index = 0; index < total.numel(); ++index) sums[index] += *part++;
  }
  return total;
}

}  // namespace attend::cpu
