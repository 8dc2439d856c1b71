#pragma once

#include <cstdint>

namespace attend {

/// The sizes of the scores [B, H, Lq, Lk].
struct ScoreShape {
  int64_t batch;
  int64_t heads;
  int64_t queries;
  int64_t keys;
  /// The range of queries whose rows are computed; by default all of them.
  int64_t first_row = 0;
  int64_t rows = queries;

  ScoreShape part(int64_t first, int64_t count) const { return {batch, heads, queries, keys, first, count}; }
};

}  // namespace attend
