#include <utility>

#include "cpu/mask/positions.h"
#include "cpu/score_mod/make_tiles.h"

namespace attend::cpu {
namespace {

/// Applies a lambda to scores and positions. The loops over a tile are compiled in the source that defines
/// the lambda.
class LambdaTiles final : public ScoreTilesBase<LambdaTiles> {
 public:
  LambdaTiles(std::shared_ptr<const detail::ScoreFunction> function, const ScoreShape& shape)
      : function_(std::move(function)), offset_(shape.keys - shape.queries) {}

  bool reads_scores() const override { return true; }

  template <typename T>
  void modify(const Tile& tile, T* scores, int64_t stride) const {
    function_->forward(positions_of(tile, offset_), scores, stride);
  }

  template <typename T>
  void differentiate(const Tile& tile, int64_t, const T* scores, T* gradients, int64_t stride) const {
    function_->backward(positions_of(tile, offset_), scores, gradients, stride);
  }

 private:
  std::shared_ptr<const detail::ScoreFunction> function_;
  int64_t offset_;
};

}  // namespace

std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Lambda& lambda,
                                                     const ScoreShape& shape, int64_t, at::ScalarType) {
  return std::make_unique<LambdaTiles>(lambda.function, shape);
}

}  // namespace attend::cpu
