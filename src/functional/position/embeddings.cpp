#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/stack.h>
#include <attend/position.h>

#include <algorithm>
#include <cmath>

#include "core/checks.h"

namespace attend {
namespace {

using checks::fail;

void check_buckets(const RelativeBuckets& buckets) {
  const bool odd = buckets.bidirectional && buckets.count % 2 != 0;
  if (buckets.count < (buckets.bidirectional ? 4 : 2) || odd) {
    fail("relative_bucket", "count",
         buckets.bidirectional ? "an even number of at least 4" : "at least 2 buckets",
         c10::str(buckets.count));
  }
  const int64_t single = (buckets.bidirectional ? buckets.count / 2 : buckets.count) / 2;
  if (buckets.max_distance <= single) {
    fail("relative_bucket", "max_distance",
         c10::str("more than the ", single, " distances that have a bucket each"),
         c10::str(buckets.max_distance));
  }
}

int64_t bucket_of(int64_t distance, const RelativeBuckets& buckets) {
  const int64_t count = buckets.bidirectional ? buckets.count / 2 : buckets.count;
  const int64_t first = buckets.bidirectional && distance > 0 ? count : 0;
  const int64_t length = buckets.bidirectional ? std::abs(distance) : std::max<int64_t>(-distance, 0);
  const int64_t single = count / 2;
  if (length < single) return first + length;
  const auto ratio = [single](int64_t to) {
    return std::log(static_cast<double>(to) / static_cast<double>(single));
  };
  const double part = ratio(length) / ratio(buckets.max_distance) * static_cast<double>(count - single);
  return first + std::min(single + static_cast<int64_t>(part), count - 1);
}

}  // namespace

at::Tensor alibi_slopes(int64_t num_heads) {
  if (num_heads < 0) fail("alibi_slopes", "num_heads", "at least 0", c10::str(num_heads));
  int64_t below = 1;  // the largest power of two that is not above the number of heads
  while (2 * below <= num_heads) below *= 2;
  auto slopes = at::empty({num_heads}, at::kFloat);
  auto* slope = slopes.mutable_data_ptr<float>();
  for (int64_t h = 0; h < num_heads; ++h) {
    const bool is_extra = h >= below;  // 1, 3, 5, ... of the sequence for twice as many heads
    const auto exponent = static_cast<double>(is_extra ? 2 * (h - below) + 1 : h + 1);
    const auto heads = static_cast<double>(is_extra ? 2 * below : below);
    slope[h] = static_cast<float>(std::exp2(-8 * exponent / heads));
  }
  return slopes;
}

at::Tensor sinusoidal(int64_t length, int64_t dim, int64_t first_position, double base,
                      const at::TensorOptions& options) {
  if (length < 0) fail("sinusoidal", "length", "at least 0", c10::str(length));
  if (dim < 1) fail("sinusoidal", "dim", "at least 1", c10::str(dim));
  if (!(base > 0)) fail("sinusoidal", "base", "a positive number", c10::str(base));
  const auto wide = at::TensorOptions(at::kDouble);
  const auto pair = at::arange((dim + 1) / 2, wide);
  const auto frequency = (pair * (-2 * std::log(base) / static_cast<double>(dim))).exp();
  const auto angle = at::arange(first_position, first_position + length, wide).unsqueeze(-1) * frequency;
  const auto table = at::stack({at::sin(angle), at::cos(angle)}, -1).flatten(-2).slice(-1, 0, dim);
  return table.to(options.has_dtype() ? options : options.dtype(at::kFloat));
}

int64_t relative_bucket(int64_t distance, const RelativeBuckets& buckets) {
  check_buckets(buckets);
  return bucket_of(distance, buckets);
}

at::Tensor relative_buckets(int64_t queries, int64_t keys, const RelativeBuckets& buckets) {
  check_buckets(buckets);
  auto result = at::empty({queries, keys}, at::kLong);
  auto* bucket = result.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t j = 0; j < keys; ++j) *bucket++ = bucket_of(j - (i + keys - queries), buckets);
  }
  return result;
}

}  // namespace attend
