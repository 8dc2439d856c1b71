#include "dropout.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include "../philox.h"

namespace attend::reference {

at::Tensor dropout_factors(uint64_t seed, double p, const ScoreShape& shape,
                           const at::TensorOptions& options) {
  const int64_t batch = shape.batch, heads = shape.heads, rows = shape.rows, keys = shape.keys;
  auto factors = at::empty({batch, heads, rows, keys}, at::kFloat);
  const auto kept = static_cast<float>(p < 1 ? 1 / (1 - p) : 0);
  const auto threshold = dropout_threshold(p);
  auto* data = factors.mutable_data_ptr<float>();
  at::parallel_for(0, batch * heads * rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t i = shape.first_row + row % rows, h = row / rows % heads, b = row / rows / heads;
      for (int64_t j = 0; j < keys; ++j) {
        data[row * keys + j] = dropout_number(seed, b, h, i, j) >= threshold ? kept : 0.0F;
      }
    }
  });
  return factors.to(options);
}

}  // namespace attend::reference
