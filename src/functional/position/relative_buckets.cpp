#include "core/relative_buckets.h"

#include <ATen/ops/empty.h>

#include "functional/position/check.h"

namespace attend {

int64_t relative_bucket(int64_t distance, const RelativeBuckets& buckets) {
  check_buckets("relative_bucket", buckets);
  return bucket_of(distance, buckets);
}

at::Tensor relative_buckets(int64_t queries, int64_t keys, const RelativeBuckets& buckets) {
  check_buckets("relative_bucket", buckets);
  auto result = at::empty({queries, keys}, at::kLong);
  auto* bucket = result.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t j = 0; j < keys; ++j) *bucket++ = bucket_of(j - (i + keys - queries), buckets);
  }
  return result;
}

}  // namespace attend
