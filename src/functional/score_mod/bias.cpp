#include <attend/score_mod.h>

#include "functional/score_mod/check.h"

namespace attend {

void check(const ScoreModNode::Bias& bias, const char* function, const ScoreShape& shape,
           const at::Tensor& query) {
  check_beside_query(function, "bias", bias.values, query);
  checks::broadcastable(function, "bias", bias.values, shape, query.dim());
}

ScoreMod bias(const at::Tensor& values) {
  checks::check_strided("bias", "values", values);
  checks::check_floating("bias", "values", values);
  return make_score_mod(ScoreModNode::Bias{values});
}

}  // namespace attend
