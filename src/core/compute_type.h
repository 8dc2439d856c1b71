#pragma once

#include <ATen/core/Tensor.h>

namespace attend {

/// The type that sums, states and logsumexp of such tensors have: float32, or float64 for float64.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// The tensor in that type.
inline at::Tensor widen(const at::Tensor& tensor) { return tensor.to(compute_type(tensor)); }

}  // namespace attend
