#include <ATen/Version.h>

#include <array>
#include <string>

#include "cpu/attention/kernel.h"
#include "cpu/runtime/bfloat16_support.h"

namespace attend::cpu {

AttentionKernels attention_kernels_default(ElementType type);
#ifdef ATTEND_X86
AttentionKernels attention_kernels_avx2(ElementType type);
AttentionKernels attention_kernels_avx512(ElementType type);
AttentionKernels attention_kernels_avx512_bf16();
#endif

namespace {

using Tables = std::array<AttentionKernels, 4>;

Tables tables_from(AttentionKernels (*kernels)(ElementType)) {
  return {kernels(ElementType::float64), kernels(ElementType::float32), kernels(ElementType::bfloat16),
          kernels(ElementType::float16)};
}

Tables detected_tables() {
#ifdef ATTEND_X86
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") {
    auto tables = tables_from(attention_kernels_avx512);
    if (has_bfloat16_products()) {
      tables[static_cast<size_t>(ElementType::bfloat16)] = attention_kernels_avx512_bf16();
    }
    return tables;
  }
  if (capability == "AVX2") return tables_from(attention_kernels_avx2);
#endif
  return tables_from(attention_kernels_default);
}

}  // namespace

const AttentionKernels& attention_kernels(ElementType type) {
  static const Tables tables = detected_tables();
  return tables[static_cast<size_t>(type)];
}

}  // namespace attend::cpu
