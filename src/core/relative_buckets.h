#pragma once

#include <ATen/core/Tensor.h>
#include <attend/positional_encoding.h>

#include "core/checks.h"

namespace attend {

/// Returns the bucket of `distance` = key position - query position. The buckets must be checked already.
int64_t bucket_of(int64_t distance, const RelativeBuckets& buckets);

/// Returns the buckets of all distances, int64 [Lq + Lk - 1] on the CPU, with the bucket of query i and key j
/// at index i - j + Lk - 1. In this order, consecutive queries have consecutive indices.
at::Tensor buckets_by_distance(const ScoreShape& shape, const RelativeBuckets& buckets);

}  // namespace attend
