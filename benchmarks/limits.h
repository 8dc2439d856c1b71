#pragma once

#include <torch/torch.h>

namespace attend::benchmarks {

/// As many floating-point operations as that, all of them multiply-adds in registers, on ATen's threads.
void multiply_add(double flops, bool in_bfloat16 = false);

/// Reads each number of a contiguous tensor once, on ATen's threads.
void read(const torch::Tensor& tensor);

/// What the machine does at most.
struct Limits {
  double gflops = 0, bfloat16_gflops = 0, gigabytes = 0;  ///< per second

  /// The shortest time in which so much can be done, in milliseconds.
  double milliseconds(double flops, bool in_bfloat16, double bytes) const;
};

/// Measures them with ATen's number of threads: the median of a few runs of each of the above.
Limits measure_limits();

}  // namespace attend::benchmarks
