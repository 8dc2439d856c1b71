#include <attend/score_mod.h>

#include "functional/position/check.h"
#include "functional/score_mod/check.h"

namespace attend {

void check(const ScoreModNode::RelativeBias& relative_bias, const char* function, const ScoreShape& shape,
           const at::Tensor& query) {
  const auto& table = relative_bias.table;
  check_beside_query(function, "table", table, query);
  if (table.size(1) != shape.heads) {
    checks::fail(function, "table",
                 c10::str("one column per head, [", relative_bias.buckets.count, ", ", shape.heads, "]"),
                 checks::describe(table));
  }
}

ScoreMod relative_bias(const at::Tensor& table, const RelativeBuckets& buckets) {
  check_buckets("relative_bias", buckets);
  checks::check_strided("relative_bias", "table", table);
  checks::check_floating("relative_bias", "table", table);
  if (table.dim() != 2 || table.size(0) != buckets.count) {
    checks::fail("relative_bias", "table", c10::str("[num_buckets, H], of ", buckets.count, " buckets"),
                 checks::describe(table));
  }
  return make_score_mod(ScoreModNode::RelativeBias{table, buckets});
}

}  // namespace attend
