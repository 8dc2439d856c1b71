#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <attend/score_mod.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error_context.h"
#include "core/score_mod_node.h"
#include "functional/score_mod/sum_in_order.h"

namespace attend {
namespace {

using cpu::Tile;

/// The bucket of every distance between a query and a key: that of i and j at i - j + Lk - 1, int64
/// [Lq + Lk - 1]; in this order a tile's neighbouring queries are neighbours.
at::Tensor buckets_of_distances(const ScoreShape& shape, const RelativeBuckets& buckets) {
  const auto ids = at::empty({std::max<int64_t>(shape.queries + shape.keys - 1, 0)}, at::kLong);
  auto* id = ids.mutable_data_ptr<int64_t>();
  // j - (i + Lk - Lq) = Lq - 1 - (i - j + Lk - 1)
  for (int64_t n = 0; n < ids.numel(); ++n) id[n] = relative_bucket(shape.queries - 1 - n, buckets);
  return ids;
}

class BoundRelativeBias final : public BoundScoreMod {
 public:
  /// `original`: the table as the user gave it; `values`: of the compute type, [H, Lq + Lk - 1], by the
  /// distances whose `buckets` are given.
  BoundRelativeBias(at::Tensor original, at::Tensor values, at::Tensor buckets, const ScoreShape& shape)
      : original_(std::move(original)),
        values_(std::move(values)),
        buckets_(std::move(buckets)),
        shape_(shape) {}

  bool reads_scores() const override { return false; }
  void want_gradients(at::ArrayRef<bool> wanted) override { is_wanted_ = wanted[0]; }
  /// Each task adds up its own.
  void begin_backward(int64_t splits, bool) override {
    if (!is_wanted_) return;
    splits_ = splits;
    gradients_ = at::zeros({splits_, shape_.batch, shape_.heads, original_.size(0)}, at::kDouble);
  }

  std::vector<at::Tensor> gradients() const override {
    if (!is_wanted_) return {at::Tensor()};
    return {sum_in_order(gradients_.flatten(0, 1)).t().to(original_.scalar_type()).contiguous()};
  }

  void forward(const Tile& tile, float* scores, int64_t stride) const override { add(tile, scores, stride); }
  void forward(const Tile& tile, double* scores, int64_t stride) const override { add(tile, scores, stride); }
  void backward(const Tile& tile, int64_t task, const float*, float* gradients,
                int64_t stride) const override {
    if (is_wanted_) accumulate(tile, task, gradients, stride);
  }
  void backward(const Tile& tile, int64_t task, const double*, double* gradients,
                int64_t stride) const override {
    if (is_wanted_) accumulate(tile, task, gradients, stride);
  }

 private:
  /// Where the distance of the tile's first query and last key stands.
  int64_t first_distance(const Tile& tile) const {
    return tile.query - (tile.key + tile.keys - 1) + shape_.keys - 1;
  }

  template <typename T>
  void add(const Tile& tile, T* scores, int64_t stride) const {
    const T* values = values_.const_data_ptr<T>() + tile.head * values_.size(1) + first_distance(tile);
    for (int64_t j = 0; j < tile.keys; ++j) {
      const T* of_key = values + tile.keys - 1 - j;
      T* row = scores + j * stride;
      for (int64_t i = 0; i < tile.queries; ++i) row[i] += of_key[i];
    }
  }

  /// Along the diagonals of the tile first, then into buckets.
  template <typename T>
  void accumulate(const Tile& tile, int64_t task, const T* gradients, int64_t stride) const {
    std::vector<double> diagonals(static_cast<size_t>(tile.queries + tile.keys - 1));
    for (int64_t j = 0; j < tile.keys; ++j) {
      double* of_key = diagonals.data() + tile.keys - 1 - j;
      const T* row = gradients + j * stride;
      for (int64_t i = 0; i < tile.queries; ++i) of_key[i] += static_cast<double>(row[i]);
    }
    const int64_t place = ((task % splits_) * shape_.batch + tile.batch) * shape_.heads + tile.head;
    double* sums = gradients_.mutable_data_ptr<double>() + place * original_.size(0);
    const int64_t* bucket = buckets_.const_data_ptr<int64_t>() + first_distance(tile);
    for (const double sum : diagonals) sums[*bucket++] += sum;
  }

  at::Tensor original_, values_, buckets_, gradients_;
  ScoreShape shape_;
  int64_t splits_ = 1;
  bool is_wanted_ = false;
};

class RelativeBias final : public ScoreModNode {
 public:
  RelativeBias(at::Tensor table, const RelativeBuckets& buckets)
      : table_(std::move(table)), buckets_(buckets) {}

  void check(const char* function, const ScoreShape& shape, const at::Tensor& query) const override {
    checks::on_device(function, "table", table_, query.device());
    if (table_.scalar_type() != query.scalar_type() && table_.scalar_type() != at::kFloat) {
      checks::fail(function, "table", "the query's dtype or float32", checks::describe(table_));
    }
    if (table_.size(1) != shape.heads) {
      checks::fail(function, "table",
                   c10::str("one column per head, [", buckets_.count, ", ", shape.heads, "]"),
                   checks::describe(table_));
    }
  }

  at::Tensor apply(const at::Tensor& scores, const ScoreShape& shape, int64_t) const override {
    const auto query = at::arange(shape.first_row, shape.first_row + shape.rows, at::kLong).view({-1, 1});
    const auto distances = query - at::arange(shape.keys, at::kLong) + (shape.keys - 1);
    const auto buckets = buckets_of_distances(shape, buckets_).index_select(0, distances.view(-1));
    const auto values = table_.to(scores.scalar_type()).index_select(0, buckets.to(scores.device()));
    return scores + values.view({shape.rows, shape.keys, shape.heads}).permute({2, 0, 1});
  }

  std::vector<at::Tensor> tensors() const override { return {table_}; }

  std::shared_ptr<const ScoreModNode> with_tensors(at::TensorList tensors) const override {
    return std::make_shared<RelativeBias>(tensors[0], buckets_);
  }

  std::unique_ptr<BoundScoreMod> bind(const ScoreShape& shape, int64_t,
                                      at::ScalarType compute_type) const override {
    const auto buckets = buckets_of_distances(shape, buckets_);
    const auto values = table_.detach().to(compute_type).t().index_select(1, buckets);
    return std::make_unique<BoundRelativeBias>(table_, values.contiguous(), buckets, shape);
  }

 private:
  at::Tensor table_;
  RelativeBuckets buckets_;
};

}  // namespace

ScoreMod relative_bias(const at::Tensor& table, const RelativeBuckets& buckets) {
  checks::in_function("relative_bias", {}, [&] { relative_bucket(0, buckets); });  // checks the buckets
  checks::is_strided("relative_bias", "table", table);
  checks::is_floating("relative_bias", "table", table);
  if (table.dim() != 2 || table.size(0) != buckets.count) {
    checks::fail("relative_bias", "table", c10::str("[num_buckets, H], of ", buckets.count, " buckets"),
                 checks::describe(table));
  }
  return ScoreMod(std::make_shared<RelativeBias>(table, buckets));
}

}  // namespace attend
