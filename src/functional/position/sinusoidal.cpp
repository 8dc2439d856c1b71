#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <attend/positional_encoding.h>

#include <cmath>

#include "core/checks.h"

namespace attend {

at::Tensor sinusoidal(int64_t length, int64_t dim, int64_t first_position, double base,
                      const at::TensorOptions& options) {
  if (length < 0) checks::fail("sinusoidal", "length", "at least 0", c10::str(length));
  if (dim < 1) checks::fail("sinusoidal", "dim", "at least 1", c10::str(dim));
  if (!(base > 0)) checks::fail("sinusoidal", "base", "a positive number", c10::str(base));
  const auto wide = at::TensorOptions(at::kDouble);
  const auto pair = at::arange((dim + 1) / 2, wide);
  const auto frequency = (pair * (-2 * std::log(base) / static_cast<double>(dim))).exp();
  const auto angle = at::arange(first_position, first_position + length, wide).unsqueeze(-1) * frequency;
  const auto table = at::stack({at::sin(angle), at::cos(angle)}, -1).flatten(-2).slice(-1, 0, dim);
  return table.to(options.has_dtype() ? options : options.dtype(at::kFloat));
}

}  // namespace attend
