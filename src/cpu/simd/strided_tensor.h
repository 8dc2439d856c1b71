#pragma once

#include <cstdint>

namespace attend::cpu {

/// A tensor of four dimensions, of which the last is contiguous. Strides are in elements.
struct StridedTensor {
  void* data;
  int64_t outer_stride, inner_stride, row_stride;
};

}  // namespace attend::cpu
