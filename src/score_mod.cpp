#include <ATen/TensorOperators.h>
#include <attend/score_mod.h>

#include <utility>

#include "score_mod_node.h"

namespace attend {
namespace {

class Bias final : public ScoreModNode {
 public:
  explicit Bias(at::Tensor values) : values_(std::move(values)) {}

  void check(const char* function, const ScoreShape& shape, const at::Tensor& query) const override {
    checks::on_device(function, "bias", values_, query.device());
    if (values_.scalar_type() != query.scalar_type() && values_.scalar_type() != at::kFloat) {
      checks::fail(function, "bias", "the query's dtype or float32", checks::describe(values_));
    }
    checks::broadcastable(function, "bias", values_, shape, query.dim());
  }

  at::Tensor apply(const at::Tensor& scores, const ScoreShape& shape, int64_t query_dim) const override {
    return scores +
           checks::broadcastable("bias", "values", values_, shape, query_dim).to(scores.scalar_type());
  }

 private:
  at::Tensor values_;
};

}  // namespace

ScoreMod bias(const at::Tensor& values) {
  checks::is_strided("bias", "values", values);
  checks::is_floating("bias", "values", values);
  return ScoreMod(std::make_shared<Bias>(values));
}

}  // namespace attend
