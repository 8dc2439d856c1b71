#include "cpu/score_mod/make_tiles.h"

#include "cpu/runtime/instruction_set.h"
#include "cpu/score_mod/kernels.h"

namespace attend::cpu {

ScoreTables score_kernels_default();
ScoreTables score_kernels_avx2();
ScoreTables score_kernels_avx512();

namespace {

const ScoreTables& tables() {
  static const auto selected =
      select_kernels<score_kernels_default, score_kernels_avx2, score_kernels_avx512>();
  return selected;
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

std::unique_ptr<DifferentiableScoreTiles> make_score_tiles(const ScoreMod& score_mod, const ScoreShape& shape,
                                                           int64_t query_dim, at::ScalarType compute_type) {
  if (!score_mod.defined()) return nullptr;
  return std::visit([&](const auto& kind) { return make_tiles(kind, shape, query_dim, compute_type); },
                    score_mod.node()->kind);
}

}  // namespace attend::cpu
