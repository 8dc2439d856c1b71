#pragma once

#include <cstdint>

namespace attend {

/// The sizes of the scores [B, H, Lq, Lk], and the rows that are computed.
struct ScoreShape {
  int64_t batch;
  int64_t heads;
  int64_t queries;
  int64_t keys;
  /// The first query whose row of scores is computed, and the number of rows; by default all rows.
  int64_t first_row = 0;
  int64_t rows = queries;

  ScoreShape part(int64_t first, int64_t count) const { return {batch, heads, queries, keys, first, count}; }
};

}  // namespace attend
