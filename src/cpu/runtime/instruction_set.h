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

/// Each instruction set includes those before it.
enum class InstructionSet { baseline, avx2, avx512, avx512_bf16 };

#ifdef ATTEND_X86
constexpr bool kHasX86Kernels = true;
#else
constexpr bool kHasX86Kernels = false;
#endif

/// The instruction set that `at::get_cpu_capability()` calls `name`, on x86; nullopt for a name that is not
/// known here.
inline std::optional<InstructionSet> instruction_set_named(std::string_view name) {
  if (name == "AVX512") return InstructionSet::avx512;
  if (name == "AVX2") return InstructionSet::avx2;
  if (name == "DEFAULT" || name == "NO AVX") return InstructionSet::baseline;
  return std::nullopt;
}

/// Whether the processor multiplies pairs of bfloat16 in AVX-512 vectors, and ATEN_CPU_CAPABILITY does not
/// limit the instruction set to "avx512", which means AVX-512 without these products.
inline bool has_bfloat16_products() {
#ifdef ATTEND_X86
  const char* requested = std::getenv("ATEN_CPU_CAPABILITY");
  return (requested == nullptr || std::string_view(requested) != "avx512") &&
         __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

/// The instruction set that ATen detected or that ATEN_CPU_CAPABILITY requests. Warns of a name that is not
/// known: the baseline kernels give correct results, but slowly.
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

/// Detected once per process.
inline InstructionSet instruction_set() {
  static const InstructionSet detected = detect_instruction_set();
  return detected;
}

/// The table of kernels for this process's instruction set: the result of one of the functions, which return
/// such a table. Without x86 only the first is called, and the others need no definition.
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
