#include "core/relative_buckets.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>

namespace attend {

int64_t bucket_of(int64_t distance, const RelativeBuckets& buckets) {
  const int64_t count = buckets.bidirectional ? buckets.count / 2 : buckets.count;
  const int64_t first = buckets.bidirectional && distance > 0 ? count : 0;
  const int64_t length = buckets.bidirectional ? std::abs(distance) : std::max<int64_t>(-distance, 0);
  const int64_t exact = count / 2;  // the number of buckets that have one distance each
  if (length < exact) return first + length;
  const auto log_ratio = [exact](int64_t to) {
    return std::log(static_cast<double>(to) / static_cast<double>(exact));
  };
  const double part =
      log_ratio(length) / log_ratio(buckets.max_distance) * static_cast<double>(count - exact);
  return first + std::min(exact + static_cast<int64_t>(part), count - 1);
}

at::Tensor buckets_by_distance(const ScoreShape& shape, const RelativeBuckets& buckets) {
  const auto result = at::empty({std::max<int64_t>(shape.queries + shape.keys - 1, 0)}, at::kLong);
  auto* bucket = result.mutable_data_ptr<int64_t>();
  // j - (i + Lk - Lq) = Lq - 1 - (i - j + Lk - 1)
  for (int64_t n = 0; n < result.numel(); ++n) bucket[n] = bucket_of(shape.queries - 1 - n, buckets);
  return result;
}

}  // namespace attend
