#pragma once

// Tensors as kernels see them.

#include <cstdint>

#include "cpu/simd/element_type.h"

namespace attend::cpu {

/// A tensor [B, H, L, D] whose last dimension is contiguous; strides in elements.
struct Heads {
  void* data;
  int64_t batch_stride, head_stride, row_stride;
};

}  // namespace attend::cpu
