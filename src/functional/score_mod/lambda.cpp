#include <attend/score_mod.h>

#include <utility>

#include "functional/position/check.h"
#include "functional/score_mod/check.h"

namespace attend {

void check(const ScoreModNode::Lambda&, const char* function, const ScoreShape& shape, const at::Tensor&) {
  check_positions(function, "score_mod", shape);
}

ScoreMod detail::score_mod_of(std::shared_ptr<const ScoreFunction> function) {
  return make_score_mod(ScoreModNode::Lambda{std::move(function)});
}

}  // namespace attend
