#include <ATen/Version.h>

#include <array>
#include <string>

#include "cpu/linear_attention/kernel.h"

namespace attend::cpu {

LinearAttentionKernels linear_attention_kernels_default(ElementType type);
#ifdef ATTEND_X86
LinearAttentionKernels linear_attention_kernels_avx2(ElementType type);
LinearAttentionKernels linear_attention_kernels_avx512(ElementType type);
#endif

namespace {

using Tables = std::array<LinearAttentionKernels, 4>;

Tables tables_from(LinearAttentionKernels (*kernels)(ElementType)) {
  return {kernels(ElementType::float64), kernels(ElementType::float32), kernels(ElementType::bfloat16),
          kernels(ElementType::float16)};
}

Tables detected_tables() {
#ifdef ATTEND_X86
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return tables_from(linear_attention_kernels_avx512);
  if (capability == "AVX2") return tables_from(linear_attention_kernels_avx2);
#endif
  return tables_from(linear_attention_kernels_default);
}

}  // namespace

const LinearAttentionKernels& linear_attention_kernels(ElementType type) {
  static const Tables tables = detected_tables();
  return tables[static_cast<size_t>(type)];
}

}  // namespace attend::cpu
