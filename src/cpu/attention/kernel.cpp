// Compiled once for each instruction set; ATTEND_KERNELS is its name for the table.

#include "cpu/attention/table.h"

namespace attend::cpu {

AttentionKernels ATTEND_KERNELS(ElementType type);
AttentionKernels ATTEND_KERNELS(ElementType type) {
  switch (type) {
    case ElementType::float64:
      return attention_table<double>();
    case ElementType::bfloat16:
      return attention_table<BFloat16>();
    case ElementType::float16:
      return attention_table<Half>();
    case ElementType::float32:
      break;
  }
  return attention_table<float>();
}

}  // namespace attend::cpu
