#pragma once

// Tensors as kernels see them.

#include <cstdint>

namespace attend::cpu {

enum class ElementType { float64, float32, bfloat16, float16 };

/// A tensor [B, H, L, D] whose last dimension is contiguous; strides in elements.
struct Heads {
  void* data;
  int64_t batch_stride, head_stride, row_stride;
};

}  // namespace attend::cpu
