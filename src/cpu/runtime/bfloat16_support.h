#pragma once

#include <ATen/Version.h>

#include <cstdlib>
#include <string>

namespace attend::cpu {

/// Whether kernels that multiply bfloat16 in pairs run here: with AVX512, where the processor has them and
/// ATEN_CPU_CAPABILITY does not ask for AVX512 alone.
inline bool has_bfloat16_products() {
#ifdef ATTEND_X86
  const char* asked = std::getenv("ATEN_CPU_CAPABILITY");
  const bool is_avx512_alone = asked != nullptr && std::string(asked) == "avx512";
  return at::get_cpu_capability() == "AVX512" && !is_avx512_alone && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace attend::cpu
