#pragma once

#include <cstdint>

namespace attend::cpu {

/// A tensor of four dimensions whose last is contiguous; strides in elements.
struct StridedTensor {
  void* data;
  int64_t outer_stride, inner_stride, row_stride;
};

}  // namespace attend::cpu
