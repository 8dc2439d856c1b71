#pragma once

// Conversion of at::Tensor to the plain structures that kernels read.

#include <ATen/core/Tensor.h>

#include "core/dtypes.h"
#include "cpu/simd/element_type.h"
#include "cpu/simd/strided_tensor.h"

namespace attend::cpu {

inline ElementType element_type(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return ElementType::float64;
    case at::kBFloat16:
      return ElementType::bfloat16;
    case at::kHalf:
      return ElementType::float16;
    default:
      return ElementType::float32;
  }
}

/// Returns the tensor, or a contiguous copy if its last dimension is not contiguous.
inline at::Tensor with_contiguous_rows(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.size(-1) <= 1 ? tensor : tensor.contiguous();
}

/// Returns the address of the first element; null for an undefined tensor.
inline void* data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.data_ptr() : nullptr; }

/// Returns a view of a tensor of four dimensions.
inline StridedTensor strided_tensor(const at::Tensor& tensor) {
  return {tensor.data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

}  // namespace attend::cpu
