#include "cpu/linear_attention/kernel.h"
#include "cpu/runtime/instruction_set.h"

namespace attend::cpu {

PerElementType<LinearAttentionKernels> linear_attention_kernels_default();
PerElementType<LinearAttentionKernels> linear_attention_kernels_avx2();
PerElementType<LinearAttentionKernels> linear_attention_kernels_avx512();

const LinearAttentionKernels& linear_attention_kernels(ElementType type) {
  static const auto kernels = select_kernels<linear_attention_kernels_default, linear_attention_kernels_avx2,
                                             linear_attention_kernels_avx512>();
  return kernels[type];
}

}  // namespace attend::cpu
