#include <algorithm>
#include <utility>

#include "cpu/score_mod/make_tiles.h"

namespace attend::cpu {
namespace {

/// Applies several score modifications, one after another.
class ComposedTiles final : public ScoreTilesBase<ComposedTiles> {
 public:
  struct Stage {
    std::unique_ptr<DifferentiableScoreTiles> tiles;
    size_t tensors;  ///< the number of tensors that have gradients
  };

  explicit ComposedTiles(std::vector<Stage> stages) : stages_(std::move(stages)) {}

  bool shares_gradients_over_batch() const override {
    return std::ranges::any_of(stages_,
                               [](const Stage& s) { return s.tiles->shares_gradients_over_batch(); });
  }
  bool shares_gradients_over_heads() const override {
    return std::ranges::any_of(stages_,
                               [](const Stage& s) { return s.tiles->shares_gradients_over_heads(); });
  }
  bool reads_scores() const override {
    return std::ranges::any_of(stages_, [](const Stage& s) { return s.tiles->reads_scores(); });
  }
  void want_gradients(at::ArrayRef<bool> wanted) override {
    for (const auto& stage : stages_) {
      stage.tiles->want_gradients(wanted.slice(0, stage.tensors));
      wanted = wanted.slice(stage.tensors);
    }
  }
  void begin_backward(int64_t splits, bool visits_all) override {
    for (const auto& stage : stages_) stage.tiles->begin_backward(splits, visits_all);
  }
  std::vector<at::Tensor> gradients() const override {
    std::vector<at::Tensor> all;
    for (const auto& stage : stages_) {
      for (auto& gradient : stage.tiles->gradients()) all.push_back(std::move(gradient));
    }
    return all;
  }

  template <typename T>
  void modify(const Tile& tile, T* scores, int64_t stride) const {
    for (const auto& stage : stages_) stage.tiles->forward(tile, scores, stride);
  }

  /// Differentiates the stages from the last to the first. The input scores of each stage are recomputed.
  template <typename T>
  void differentiate(const Tile& tile, int64_t task, const T* scores, T* gradients, int64_t stride) const {
    T stage_scores[kMaxTileKeys * kMaxTileQueries];
    for (size_t n = stages_.size(); n-- > 0;) {
      const auto& tiles = *stages_[n].tiles;
      if (n == 0 || !tiles.reads_scores()) {
        tiles.backward(tile, task, scores, gradients, stride);
        continue;
      }
      for (int64_t j = 0; j < tile.keys; ++j) {
        std::copy_n(scores + j * stride, tile.queries, stage_scores + j * stride);
      }
      for (size_t before = 0; before < n; ++before)
        stages_[before].tiles->forward(tile, stage_scores, stride);
      tiles.backward(tile, task, stage_scores, gradients, stride);
    }
  }

 private:
  std::vector<Stage> stages_;
};

/// Appends the score modifications of which `score_mod` is composed.
void append_stages(const ScoreMod& score_mod, const ScoreShape& shape, int64_t query_dim,
                   at::ScalarType compute_type, std::vector<ComposedTiles::Stage>& stages) {
  if (const auto* composed = std::get_if<ScoreModNode::Composed>(&score_mod.node()->kind)) {
    append_stages(composed->first, shape, query_dim, compute_type, stages);
    append_stages(composed->second, shape, query_dim, compute_type, stages);
  } else {
    stages.push_back(
        {make_score_tiles(score_mod, shape, query_dim, compute_type), tensors_of(score_mod).size()});
  }
}

}  // namespace

std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Composed& composed,
                                                     const ScoreShape& shape, int64_t query_dim,
                                                     at::ScalarType compute_type) {
  std::vector<ComposedTiles::Stage> stages;
  append_stages(composed.first, shape, query_dim, compute_type, stages);
  append_stages(composed.second, shape, query_dim, compute_type, stages);
  return std::make_unique<ComposedTiles>(std::move(stages));
}

}  // namespace attend::cpu
