#include "functional/position/check.h"

#include <algorithm>
#include <limits>

namespace attend {

void check_positions(const char* function, const char* argument, const ScoreShape& shape) {
  constexpr int64_t kMaxPosition = std::numeric_limits<int>::max();
  if (std::max(shape.queries, shape.keys) > kMaxPosition) {
    checks::fail(function, argument, c10::str("at most ", kMaxPosition, " queries and keys"),
                 c10::str(shape.queries, " and ", shape.keys));
  }
}

void check_buckets(const char* function, const RelativeBuckets& buckets) {
  const bool is_odd = buckets.bidirectional && buckets.count % 2 != 0;
  if (buckets.count < (buckets.bidirectional ? 4 : 2) || is_odd) {
    checks::fail(function, "count",
                 buckets.bidirectional ? "an even number of at least 4" : "at least 2 buckets",
                 c10::str(buckets.count));
  }
  const int64_t exact = (buckets.bidirectional ? buckets.count / 2 : buckets.count) / 2;
  if (buckets.max_distance <= exact) {
    checks::fail(function, "max_distance",
                 c10::str("more than the ", exact, " distances that have a bucket each"),
                 c10::str(buckets.max_distance));
  }
}

}  // namespace attend
