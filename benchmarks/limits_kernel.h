#pragma once

#include <cstdint>

namespace attend::benchmarks {

/// What one thread does as fast as its instruction set can.
struct LimitKernels {
  /// Multiply-adds in registers; `steps` of them in each lane of each chain.
  float (*multiply_add)(int64_t steps);
  int64_t flops_per_step;
  /// The same of bfloat16, added up in float32; where there is no instruction for it, that of float32.
  float (*multiply_add_bfloat16)(int64_t steps);
  int64_t bfloat16_flops_per_step;
  /// The sum of n numbers.
  float (*sum)(const float* numbers, int64_t n);
};

}  // namespace attend::benchmarks
