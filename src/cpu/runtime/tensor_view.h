#pragma once

// From at::Tensor to what kernels see.

#include <ATen/core/Tensor.h>

#include "core/compute_type.h"
#include "cpu/runtime/heads.h"

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

inline at::Tensor with_contiguous_rows(const at::Tensor& tensor) {
  return tensor.stride(-1) == 1 || tensor.size(-1) <= 1 ? tensor : tensor.contiguous();
}

/// Null for an undefined tensor.
inline void* data_of(const at::Tensor& tensor) { return tensor.defined() ? tensor.data_ptr() : nullptr; }

inline Heads heads_of(const at::Tensor& tensor) {
  return {tensor.data_ptr(), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

inline int64_t padded(int64_t size, int64_t lanes) { return (size + lanes - 1) / lanes * lanes; }

}  // namespace attend::cpu
