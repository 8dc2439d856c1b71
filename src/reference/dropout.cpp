#include "reference/dropout.h"

#include <ATen/Parallel.h>

#include "core/philox.h"
#include "core/torch_private.h"

namespace attend::reference {
namespace {

template <typename T>
void fill(const at::Tensor& factors, uint64_t seed, uint32_t threshold, const ScoreShape& shape) {
  const int64_t heads = shape.heads, rows = shape.rows, keys = shape.keys;
  const auto kept = static_cast<T>(dropout_scale(threshold));
  auto* data = factors.mutable_data_ptr<T>();
  at::parallel_for(0, shape.batch * heads * rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t i = shape.first_row + row % rows, h = row / rows % heads, b = row / rows / heads;
      for (int64_t j = 0; j < keys; ++j) {
        data[row * keys + j] = dropout_number(seed, b, h, i, j) >= threshold ? kept : T{0};
      }
    }
  });
}

}  // namespace

at::Tensor dropout_factors(uint64_t seed, double p, const ScoreShape& shape,
                           const at::TensorOptions& options) {
  const bool is_double = options.dtype() == at::kDouble;
  const auto factors = torch_private::empty_on_cpu({shape.batch, shape.heads, shape.rows, shape.keys},
                                                   is_double ? at::kDouble : at::kFloat);
  (is_double ? fill<double> : fill<float>)(factors, seed, dropout_threshold(p), shape);
  return factors.to(options);
}

}  // namespace attend::reference
