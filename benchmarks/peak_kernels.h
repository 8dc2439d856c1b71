#pragma once

#include <cstdint>

namespace attend::benchmarks {

/// Single-threaded loops that reach the peak rates of an instruction set.
struct PeakKernels {
  /// Executes multiply-adds in registers, `steps` in each lane of each chain.
  float (*multiply_add)(int64_t steps);
  int64_t flops_per_step;
  /// The same loop with bfloat16 products that are accumulated in float32; the float32 loop if the processor
  /// has no such instructions.
  float (*multiply_add_bfloat16)(int64_t steps);
  int64_t bfloat16_flops_per_step;
  /// Returns the sum of n elements.
  float (*sum)(const float* values, int64_t n);
};

}  // namespace attend::benchmarks
