// This file is compiled once for each instruction set; ATTEND_KERNELS is the name of the function that
// returns the kernels.

#include "cpu/attention/table.h"

namespace attend::cpu {

PerElementType<AttentionKernels> ATTEND_KERNELS();
PerElementType<AttentionKernels> ATTEND_KERNELS() {
  return {.float64 = attention_table<double>(),
          .bfloat16 = attention_table<BFloat16>(),
          .float16 = attention_table<Half>(),
          .float32 = attention_table<float>()};
}

}  // namespace attend::cpu
