#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <attend/score_mod.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/inputs.h"
#include "core/score_mod_node.h"
#include "cpu/score_mod/kernels.h"
#include "functional/score_mod/sum_in_order.h"

namespace attend {
namespace {

using cpu::Tile;

class BoundBias final : public BoundScoreMod {
 public:
  /// `original`: as the user gave it; `values`: of the compute type, four dimensions.
  BoundBias(const at::Tensor& original, const at::Tensor& values, const ScoreShape& shape)
      : original_(original),
        values_(values),
        expanded_(values.expand({shape.batch, shape.heads, shape.queries, shape.keys})),
        shape_(shape) {}

  bool reads_scores() const override { return false; }
  void want_gradients(at::ArrayRef<bool> wanted) override { is_wanted_ = wanted[0]; }
  bool shares_gradients_over_batch() const override {
    return is_wanted_ && values_.size(0) == 1 && shape_.batch > 1;
  }
  bool shares_gradients_over_heads() const override {
    return is_wanted_ && values_.size(1) == 1 && shape_.heads > 1;
  }

  /// A bias that does not depend on the key gets gradients from every split: each adds up its own.
  void begin_backward(int64_t splits, bool visits_all) override {
    if (!is_wanted_) return;
    auto sizes = values_.sizes().vec();
    sizes.insert(sizes.begin(), sums_keys() ? splits : 1);
    splits_ = splits;
    is_written_once_ = visits_all &&
                       values_.sizes().equals({shape_.batch, shape_.heads, shape_.queries, shape_.keys}) &&
                       !is_long_sum();
    gradients_ = at::empty(sizes, is_long_sum() ? values_.options().dtype(at::kDouble) : values_.options());
    if (!is_written_once_) gradients_.zero_();
    expanded_gradients_ =
        gradients_.expand({gradients_.size(0), shape_.batch, shape_.heads, shape_.queries, shape_.keys});
  }

  std::vector<at::Tensor> gradients() const override {
    if (!is_wanted_) return {at::Tensor()};
    const auto total = gradients_.size(0) == 1 ? gradients_.select(0, 0) : sum_in_order(gradients_);
    return {total.view(original_.sizes()).to(original_.scalar_type())};
  }

  void forward(const Tile& tile, float* scores, int64_t stride) const override {
    add_to(tile, scores, stride);
  }
  void forward(const Tile& tile, double* scores, int64_t stride) const override {
    add_to(tile, scores, stride);
  }
  void backward(const Tile& tile, int64_t task, const float*, float* gradients,
                int64_t stride) const override {
    if (is_wanted_) accumulate(tile, task, gradients, stride);
  }
  void backward(const Tile& tile, int64_t task, const double*, double* gradients,
                int64_t stride) const override {
    if (is_wanted_) accumulate(tile, task, gradients, stride);
  }

 private:
  /// Neighbours in a tile's scores are far apart in the bias: squares of this size keep both in the cache.
  static constexpr int64_t kSquare = 16;

  template <typename Action>
  static void for_each_square(const Tile& tile, Action action) {
    for (int64_t j = 0; j < tile.keys; j += kSquare) {
      for (int64_t i = 0; i < tile.queries; i += kSquare) {
        action(j, std::min(j + kSquare, tile.keys), i, std::min(i + kSquare, tile.queries));
      }
    }
  }

  template <typename T>
  void add_to(const Tile& tile, T* scores, int64_t stride) const {
    const auto strides = expanded_.strides();
    const int64_t row = strides[2], column = strides[3];
    const T* values = expanded_.const_data_ptr<T>() + tile.batch * strides[0] + tile.head * strides[1] +
                      tile.query * row + tile.key * column;
    if (column == 1) return cpu::score_kernels<T>().add_bias(tile, values, row, scores, stride);
    for_each_square(tile, [&](int64_t key, int64_t key_end, int64_t query, int64_t query_end) {
      for (int64_t i = query; i < query_end; ++i) {
        for (int64_t j = key; j < key_end; ++j) scores[j * stride + i] += values[i * row + j * column];
      }
    });
  }

  template <typename T>
  void accumulate(const Tile& tile, int64_t task, const T* gradients, int64_t stride) const {
    if (is_long_sum()) {
      accumulate_sums(tile, task, gradients, stride);
    } else {
      accumulate_each(tile, task, gradients, stride);
    }
  }

  template <typename T>
  T* sums_of(const Tile& tile, int64_t task) const {
    const auto strides = expanded_gradients_.strides();
    const int64_t split = gradients_.size(0) > 1 ? task % splits_ : 0;
    return expanded_gradients_.mutable_data_ptr<T>() + split * strides[0] + tile.batch * strides[1] +
           tile.head * strides[2] + tile.query * strides[3] + tile.key * strides[4];
  }

  template <typename T>
  void accumulate_each(const Tile& tile, int64_t task, const T* gradients, int64_t stride) const {
    const int64_t row = expanded_gradients_.stride(3);
    const auto& kernels = cpu::score_kernels<T>();
    const auto sum = is_written_once_ ? kernels.set_bias_gradients : kernels.add_bias_gradients;
    sum(tile, gradients, stride, sums_of<T>(tile, task), row);
  }

  /// Where the bias does not depend on the query, the key or either: sums over a tile first, then over the
  /// tiles.
  template <typename T>
  void accumulate_sums(const Tile& tile, int64_t task, const T* gradients, int64_t stride) const {
    const bool of_queries = !sums_queries(), of_keys = !sums_keys();
    std::vector<long double> of_tile(static_cast<size_t>(of_queries ? tile.queries
                                                         : of_keys  ? tile.keys
                                                                    : 1));
    for (int64_t j = 0; j < tile.keys; ++j) {
      long double of_key = 0;
      for (int64_t i = 0; i < tile.queries; ++i) {
        const auto gradient = static_cast<long double>(gradients[j * stride + i]);
        if (of_queries) of_tile[static_cast<size_t>(i)] += gradient;
        of_key += gradient;
      }
      if (!of_queries) of_tile[static_cast<size_t>(of_keys ? j : 0)] += of_key;
    }
    double* sums = sums_of<double>(tile, task);
    const int64_t step = expanded_gradients_.stride(of_queries ? 3 : 4);
    for (size_t n = 0; n < of_tile.size(); ++n) {
      sums[static_cast<int64_t>(n) * step] += static_cast<double>(of_tile[n]);
    }
  }

  /// Whether an element of the bias serves many queries (keys): its gradients are summed in float64.
  bool sums_queries() const { return values_.size(2) == 1 && shape_.queries > 1; }
  bool sums_keys() const { return values_.size(3) == 1 && shape_.keys > 1; }
  bool is_long_sum() const { return sums_queries() || sums_keys(); }

  at::Tensor original_, values_, expanded_, gradients_, expanded_gradients_;
  ScoreShape shape_;
  int64_t splits_ = 1;
  bool is_wanted_ = false, is_written_once_ = false;
};

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
    const auto values = checks::broadcastable("bias", "values", values_, shape, query_dim);
    return scores + checks::rows_of(values, shape).to(scores.scalar_type());
  }

  at::Tensor added(const ScoreShape& shape, int64_t query_dim) const override {
    return checks::broadcastable("bias", "values", values_, shape, query_dim);
  }

  std::vector<at::Tensor> tensors() const override { return {values_}; }

  std::shared_ptr<const ScoreModNode> with_tensors(at::TensorList tensors) const override {
    return std::make_shared<Bias>(tensors[0]);
  }

  std::unique_ptr<BoundScoreMod> bind(const ScoreShape& shape, int64_t query_dim,
                                      at::ScalarType compute_type) const override {
    const auto values =
        checks::broadcastable("bias", "values", materialized(values_.detach()), shape, query_dim);
    return std::make_unique<BoundBias>(values_, values.to(compute_type), shape);
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
