#pragma once

#include <torch/torch.h>

namespace attend::benchmarks {

/// Executes `flops` floating-point operations, as multiply-adds in registers, on ATen's threads.
void multiply_add(double flops, bool in_bfloat16 = false);

/// Reads each element of a contiguous tensor once, on ATen's threads.
void read(const torch::Tensor& tensor);

/// The peak rates of the machine with some number of threads, which define the roofline.
struct PeakRates {
  int threads;
  double gflops, bfloat16_gflops;  ///< 10^9 floating-point operations per second
  double gigabytes;                ///< 10^9 bytes read per second

  /// Returns the time of a computation that runs at the peak rates.
  double milliseconds(double flops, bool in_bfloat16, double bytes) const;
};

/// Measures the rates of `multiply_add` and `read` with ATen's number of threads, as medians of a few runs.
PeakRates measure_peak_rates();

}  // namespace attend::benchmarks
