#pragma once

#include <ATen/core/Tensor.h>
#include <attend/positional_encoding.h>

#include "core/checks.h"

namespace attend {

/// The bucket of key position - query position, for buckets that were checked.
int64_t bucket_of(int64_t distance, const RelativeBuckets& buckets);

/// The bucket of every pair of positions: that of query i and key j at index i - j + Lk - 1, int64
/// [Lq + Lk - 1] on the CPU. In this order neighbouring queries of a tile are neighbours.
at::Tensor buckets_by_distance(const ScoreShape& shape, const RelativeBuckets& buckets);

}  // namespace attend
