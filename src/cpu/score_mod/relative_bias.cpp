#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "core/relative_buckets.h"
#include "cpu/score_mod/kernels.h"
#include "cpu/score_mod/make_tiles.h"
#include "cpu/score_mod/sum_in_order.h"

namespace attend::cpu {
namespace {

/// Computes score + table[bucket of the distance, head].
class RelativeBiasTiles final : public ScoreTilesBase<RelativeBiasTiles> {
 public:
  /// `table` is the caller's tensor; `values` [H, Lq + Lk - 1] has compute type and holds the bias of each
  /// distance, in the order of `buckets`; see `buckets_by_distance`.
  RelativeBiasTiles(at::Tensor table, at::Tensor values, at::Tensor buckets, const ScoreShape& shape)
      : table_(std::move(table)), values_(std::move(values)), buckets_(std::move(buckets)), shape_(shape) {}

  bool reads_scores() const override { return false; }
  void want_gradients(at::ArrayRef<bool> wanted) override { is_wanted_ = wanted[0]; }

  /// Allocates separate sums for each split of the keys.
  void begin_backward(int64_t splits, bool) override {
    if (!is_wanted_) return;
    splits_ = splits;
    gradients_ = at::zeros({splits_, shape_.batch, shape_.heads, table_.size(0)}, at::kDouble);
  }

  std::vector<at::Tensor> gradients() const override {
    if (!is_wanted_) return {at::Tensor()};
    return {sum_in_order(gradients_.flatten(0, 1)).t().to(table_.scalar_type()).contiguous()};
  }

  template <typename T>
  void modify(const Tile& tile, T* scores, int64_t stride) const {
    const T* values = values_.const_data_ptr<T>() + tile.head * values_.size(1) + first_distance(tile);
    score_kernels<T>().add_by_distance(tile, values, scores, stride);
  }

  template <typename T>
  void differentiate(const Tile& tile, int64_t task, const T*, T* gradients, int64_t stride) const {
    if (!is_wanted_) return;
    const int64_t index = ((task % splits_) * shape_.batch + tile.batch) * shape_.heads + tile.head;
    double* sums = gradients_.mutable_data_ptr<double>() + index * table_.size(0);
    const int64_t* buckets = buckets_.const_data_ptr<int64_t>() + first_distance(tile);
    score_kernels<T>().sum_by_bucket(tile, gradients, stride, buckets, sums);
  }

 private:
  /// Returns the index, in `buckets`, of the distance between the tile's first query and last key.
  int64_t first_distance(const Tile& tile) const {
    return tile.query - (tile.key + tile.keys - 1) + shape_.keys - 1;
  }

  at::Tensor table_, values_, buckets_, gradients_;
  ScoreShape shape_;
  int64_t splits_ = 1;
  bool is_wanted_ = false;
};

}  // namespace

std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::RelativeBias& relative_bias,
                                                     const ScoreShape& shape, int64_t,
                                                     at::ScalarType compute_type) {
  const auto buckets = buckets_by_distance(shape, relative_bias.buckets);
  const auto values = relative_bias.table.detach().to(compute_type).t().index_select(1, buckets);
  return std::make_unique<RelativeBiasTiles>(relative_bias.table, values.contiguous(), buckets, shape);
}

}  // namespace attend::cpu
