#include <attend/score_mod.h>

#include "functional/score_mod/check.h"

namespace attend {

void check(const ScoreModNode::Alibi& alibi, const char* function, const ScoreShape& shape,
           const at::Tensor& query) {
  const auto& slopes = alibi.slopes;
  check_beside_query(function, "slopes", slopes, query);
  const bool is_per_batch = slopes.dim() == 2;
  if (slopes.size(-1) != shape.heads || (is_per_batch && slopes.size(0) != shape.batch)) {
    checks::fail(function, "slopes",
                 c10::str("one per head, [", shape.heads, "] or [", shape.batch, ", ", shape.heads, "]"),
                 checks::describe(slopes));
  }
}

ScoreMod alibi(const at::Tensor& slopes) {
  checks::check_strided("alibi", "slopes", slopes);
  checks::check_floating("alibi", "slopes", slopes);
  if (slopes.dim() < 1 || slopes.dim() > 2) {
    checks::fail("alibi", "slopes", "[H] or [B, H]", checks::describe(slopes));
  }
  return make_score_mod(ScoreModNode::Alibi{slopes});
}

}  // namespace attend
