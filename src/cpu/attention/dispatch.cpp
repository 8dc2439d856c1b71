#include "cpu/attention/kernel.h"
#include "cpu/runtime/instruction_set.h"

namespace attend::cpu {

PerElementType<AttentionKernels> attention_kernels_default();
PerElementType<AttentionKernels> attention_kernels_avx2();
PerElementType<AttentionKernels> attention_kernels_avx512();
AttentionKernels attention_kernels_avx512_bf16();

namespace {

PerElementType<AttentionKernels> select_attention_kernels() {
  auto kernels =
      select_kernels<attention_kernels_default, attention_kernels_avx2, attention_kernels_avx512>();
  if constexpr (kHasX86Kernels) {
    if (instruction_set() == InstructionSet::avx512_bf16) kernels.bfloat16 = attention_kernels_avx512_bf16();
  }
  return kernels;
}

}  // namespace

const AttentionKernels& attention_kernels(ElementType type) {
  static const auto kernels = select_attention_kernels();
  return kernels[type];
}

}  // namespace attend::cpu
