#include "functional/score_mod/check.h"

namespace attend {

void check_score_mod(const char* function, const ScoreMod& score_mod, const ScoreShape& shape,
                     const at::Tensor& query) {
  if (!score_mod.defined()) return;
  std::visit([&](const auto& kind) { check(kind, function, shape, query); }, score_mod.node()->kind);
}

void check_beside_query(const char* function, const char* argument, const at::Tensor& tensor,
                        const at::Tensor& query) {
  checks::check_device(function, argument, tensor, query.device());
  if (tensor.scalar_type() != query.scalar_type() && tensor.scalar_type() != at::kFloat) {
    checks::fail(function, argument, "the query's dtype or float32", checks::describe(tensor));
  }
}

}  // namespace attend
