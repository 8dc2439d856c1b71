#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>

#include "../checks.h"

namespace attend {

/// The positions of keys and queries, shaped to broadcast to the scores.
inline at::Tensor key_row(const ScoreShape& shape, at::Device device) {
  return at::arange(shape.keys, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, 1, -1});
}

inline at::Tensor query_column(const ScoreShape& shape, at::Device device) {
  return at::arange(shape.queries, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, -1, 1});
}

}  // namespace attend
