#pragma once

#include <ATen/core/Tensor.h>

#include <limits>

namespace attend {

/// The logarithm of 0: the score of a masked key, or the logarithm of a decay that sets the state to zero.
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// Returns the compute type of a tensor, the dtype of sums, states and the logsumexp: float64 for float64,
/// otherwise float32.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Returns the tensor converted to its compute type.
inline at::Tensor widen(const at::Tensor& tensor) { return tensor.to(compute_type(tensor)); }

}  // namespace attend
