#include <ATen/Version.h>

#include <string>

#include "cpu/score_mod/kernels.h"

namespace attend::cpu {

ScoreTables score_kernels_default();
#ifdef ATTEND_X86
ScoreTables score_kernels_avx2();
ScoreTables score_kernels_avx512();
#endif

namespace {

ScoreTables detected_tables() {
#ifdef ATTEND_X86
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return score_kernels_avx512();
  if (capability == "AVX2") return score_kernels_avx2();
#endif
  return score_kernels_default();
}

const ScoreTables& tables() {
  static const ScoreTables found = detected_tables();
  return found;
}

}  // namespace

template <>
const ScoreKernels<float>& score_kernels<float>() {
  return tables().float32;
}

template <>
const ScoreKernels<double>& score_kernels<double>() {
  return tables().float64;
}

}  // namespace attend::cpu
