#pragma once

// The choice of an instruction set. Each kernel source is compiled once for each instruction set and then
// defines functions NAME_default, NAME_avx2, ... that return its table of kernels; see
// cmake/AttendKernels.cmake.

#include <ATen/Version.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

namespace attend::cpu {

/// The instruction sets with kernels of their own. Each includes the previous ones.
enum class InstructionSet { baseline, avx2, avx512, avx512_bf16 };

#ifdef ATTEND_X86
constexpr bool kHasX86Kernels = true;
#else
constexpr bool kHasX86Kernels = false;
#endif

/// Returns the instruction set that `at::get_cpu_capability()` calls `name` on x86; nullopt for an unknown
/// name.
inline std::optional<InstructionSet> instruction_set_named(std::string_view name) {
  if (name == "AVX512") return InstructionSet::avx512;
  if (name == "AVX2") return InstructionSet::avx2;
  if (name == "DEFAULT" || name == "NO AVX") return InstructionSet::baseline;
  return std::nullopt;
}

/// Whether products of bfloat16 pairs (AVX512_BF16) may be used: the processor has them, and
/// ATEN_CPU_CAPABILITY is not "avx512", which selects AVX-512 without them.
inline bool has_bfloat16_products() {
#ifdef ATTEND_X86
  const char* requested = std::getenv("ATEN_CPU_CAPABILITY");
  return (requested == nullptr || std::string_view(requested) != "avx512") &&
         __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

/// Returns the instruction set that ATen detected or that ATEN_CPU_CAPABILITY requests. For an unknown name
/// it warns and returns `baseline`, whose kernels are correct but slow.
inline InstructionSet detect_instruction_set() {
  if (!kHasX86Kernels) return InstructionSet::baseline;
  const std::string name = at::get_cpu_capability();
  const auto found = instruction_set_named(name);
  if (!found.has_value()) {
    TORCH_WARN("attend: at::get_cpu_capability(): expected DEFAULT, NO AVX, AVX2 or AVX512, got ", name,
               "; the slow baseline kernels are used");
  }
  const auto instruction_set = found.value_or(InstructionSet::baseline);
  const bool is_avx512 = instruction_set == InstructionSet::avx512;
  return is_avx512 && has_bfloat16_products() ? InstructionSet::avx512_bf16 : instruction_set;
}

/// Returns the instruction set of this process, which the first call detects.
inline InstructionSet instruction_set() {
  static const InstructionSet detected = detect_instruction_set();
  return detected;
}

/// Returns the table of kernels for the instruction set of this process, by calling the corresponding one of
/// the four functions. On other processors than x86 only `baseline` is called, and the others need no
/// definition.
template <auto baseline, auto avx2, auto avx512, auto avx512_bf16 = avx512>
auto select_kernels() {
  if constexpr (kHasX86Kernels) {
    switch (instruction_set()) {
      case InstructionSet::avx512_bf16:
        return avx512_bf16();
      case InstructionSet::avx512:
        return avx512();
      case InstructionSet::avx2:
        return avx2();
      case InstructionSet::baseline:
        break;
    }
  }
  return baseline();
}

}  // namespace attend::cpu
