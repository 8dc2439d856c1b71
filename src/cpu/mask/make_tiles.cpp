#include "cpu/mask/make_tiles.h"

#include "cpu/mask/kernels.h"
#include "cpu/runtime/instruction_set.h"

namespace attend::cpu {

MaskKernels mask_kernels_default();
MaskKernels mask_kernels_avx2();
MaskKernels mask_kernels_avx512();

const MaskKernels& mask_kernels() {
  static const auto kernels = select_kernels<mask_kernels_default, mask_kernels_avx2, mask_kernels_avx512>();
  return kernels;
}

std::unique_ptr<MaskTiles> make_mask_tiles(const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                                           MaskStates& states) {
  if (!mask.defined()) return nullptr;
  return std::visit([&](const auto& kind) { return make_tiles(kind, shape, query_dim, states); },
                    mask.node()->kind);
}

}  // namespace attend::cpu
