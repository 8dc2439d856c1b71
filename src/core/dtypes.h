#pragma once

#include <ATen/core/Tensor.h>

#include <limits>

namespace attend {

/// The logarithm of 0: the score of a masked key, or the logarithm of a decay that forgets everything.
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// The dtype in which sums, states and the logsumexp of the tensor are computed: float64 for float64, else
/// float32.
inline at::ScalarType compute_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// The tensor converted to its compute type.
inline at::Tensor widen(const at::Tensor& tensor) { return tensor.to(compute_type(tensor)); }

}  // namespace attend
