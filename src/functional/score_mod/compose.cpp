#include <attend/score_mod.h>

#include "functional/score_mod/check.h"

namespace attend {

void check(const ScoreModNode::Composed& composed, const char* function, const ScoreShape& shape,
           const at::Tensor& query) {
  check_score_mod(function, composed.first, shape, query);
  check_score_mod(function, composed.second, shape, query);
}

ScoreMod ScoreMod::then(const ScoreMod& next) const {
  if (!defined()) return next;
  if (!next.defined()) return *this;
  return make_score_mod(ScoreModNode::Composed{*this, next});
}

}  // namespace attend
