#include <ATen/ops/empty.h>
#include <attend/positional_encoding.h>

#include <cmath>

#include "core/checks.h"

namespace attend {

at::Tensor alibi_slopes(int64_t num_heads) {
  if (num_heads < 0) checks::fail("alibi_slopes", "num_heads", "at least 0", c10::str(num_heads));
  int64_t below = 1;  // the largest power of two that is at most num_heads
  while (2 * below <= num_heads) below *= 2;
  auto slopes = at::empty({num_heads}, at::kFloat);
  auto* slope = slopes.mutable_data_ptr<float>();
  for (int64_t h = 0; h < num_heads; ++h) {
    const bool is_extra = h >= below;  // elements 1, 3, 5, ... of the slopes for 2 `below` heads
    const auto exponent = static_cast<double>(is_extra ? 2 * (h - below) + 1 : h + 1);
    const auto heads = static_cast<double>(is_extra ? 2 * below : below);
    slope[h] = static_cast<float>(std::exp2(-8 * exponent / heads));
  }
  return slopes;
}

}  // namespace attend
