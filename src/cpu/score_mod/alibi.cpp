#include <ATen/ops/zeros.h>

#include <utility>

#include "core/inputs.h"
#include "cpu/score_mod/kernels.h"
#include "cpu/score_mod/make_tiles.h"
#include "cpu/score_mod/sum_in_order.h"

namespace attend::cpu {
namespace {

/// Computes score - slope |i + Lk - Lq - j|.
class AlibiTiles final : public ScoreTilesBase<AlibiTiles> {
 public:
  /// `original` is the caller's tensor of slopes; `slopes` has compute type and is expanded to [B, H].
  AlibiTiles(at::Tensor original, at::Tensor slopes, const ScoreShape& shape)
      : original_(std::move(original)), slopes_(std::move(slopes)), offset_(shape.keys - shape.queries) {}

  bool reads_scores() const override { return false; }
  void want_gradients(at::ArrayRef<bool> wanted) override { is_wanted_ = wanted[0]; }

  /// Allocates separate sums for each split of the keys.
  void begin_backward(int64_t splits, bool) override {
    if (!is_wanted_) return;
    splits_ = splits;
    gradients_ = at::zeros({splits_, slopes_.size(0), slopes_.size(1)}, slopes_.options().dtype(at::kDouble));
  }

  std::vector<at::Tensor> gradients() const override {
    if (!is_wanted_) return {at::Tensor()};
    const auto total = sum_in_order(gradients_);
    return {(original_.dim() == 1 ? sum_in_order(total) : total).to(original_.scalar_type())};
  }

  template <typename T>
  void modify(const Tile& tile, T* scores, int64_t stride) const {
    const T slope =
        slopes_.const_data_ptr<T>()[tile.batch * slopes_.stride(0) + tile.head * slopes_.stride(1)];
    score_kernels<T>().alibi(tile, slope, first_distance(tile), scores, stride);
  }

  template <typename T>
  void differentiate(const Tile& tile, int64_t task, const T*, T* gradients, int64_t stride) const {
    if (!is_wanted_) return;
    const int64_t index = ((task % splits_) * slopes_.size(0) + tile.batch) * slopes_.size(1) + tile.head;
    gradients_.mutable_data_ptr<double>()[index] -=
        score_kernels<T>().alibi_backward(tile, first_distance(tile), gradients, stride);
  }

 private:
  /// Returns the position of the tile's first query minus that of its first key.
  int64_t first_distance(const Tile& tile) const { return tile.query + offset_ - tile.key; }

  at::Tensor original_, slopes_, gradients_;
  int64_t offset_, splits_ = 1;
  bool is_wanted_ = false;
};

}  // namespace

std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Alibi& alibi,
                                                     const ScoreShape& shape, int64_t,
                                                     at::ScalarType compute_type) {
  const auto slopes = materialized(alibi.slopes.detach()).to(compute_type).expand({shape.batch, shape.heads});
  return std::make_unique<AlibiTiles>(alibi.slopes, slopes, shape);
}

}  // namespace attend::cpu
