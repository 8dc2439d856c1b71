#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>

#include "core/checks.h"

namespace attend {

/// The positions of the keys, and of the queries whose rows are written out, shaped to broadcast to the
/// scores.
inline at::Tensor key_row(const ScoreShape& shape, at::Device device) {
  return at::arange(shape.keys, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, 1, -1});
}

inline at::Tensor query_column(const ScoreShape& shape, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return at::arange(shape.first_row, shape.first_row + shape.rows, options).view({1, 1, -1, 1});
}

}  // namespace attend
