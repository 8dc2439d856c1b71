#include <ATen/ops/empty.h>

#include "core/inputs.h"
#include "cpu/score_mod/kernels.h"
#include "cpu/score_mod/make_tiles.h"
#include "cpu/score_mod/sum_in_order.h"

namespace attend::cpu {
namespace {

/// Computes score + values[b, h, i, j].
class BiasTiles final : public ScoreTilesBase<BiasTiles> {
 public:
  /// `original` is the caller's tensor; `values` has compute type and four dimensions.
  BiasTiles(const at::Tensor& original, const at::Tensor& values, const ScoreShape& shape)
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

  /// Allocates the sums; separate sums for each split of the keys if the bias does not depend on the key.
  void begin_backward(int64_t splits, bool visits_all) override {
    if (!is_wanted_) return;
    auto sizes = values_.sizes().vec();
    sizes.insert(sizes.begin(), sums_keys() ? splits : 1);
    splits_ = splits;
    is_written_once_ = visits_all &&
                       values_.sizes().equals({shape_.batch, shape_.heads, shape_.queries, shape_.keys}) &&
                       !is_float64_sum();
    gradients_ =
        at::empty(sizes, is_float64_sum() ? values_.options().dtype(at::kDouble) : values_.options());
    if (!is_written_once_) gradients_.zero_();
    expanded_gradients_ =
        gradients_.expand({gradients_.size(0), shape_.batch, shape_.heads, shape_.queries, shape_.keys});
  }

  std::vector<at::Tensor> gradients() const override {
    if (!is_wanted_) return {at::Tensor()};
    const auto total = gradients_.size(0) == 1 ? gradients_.select(0, 0) : sum_in_order(gradients_);
    return {total.view(original_.sizes()).to(original_.scalar_type())};
  }

  template <typename T>
  void modify(const Tile& tile, T* scores, int64_t stride) const {
    const auto strides = expanded_.strides();
    const int64_t query_stride = strides[2], key_stride = strides[3];
    const T* values = expanded_.const_data_ptr<T>() + tile.batch * strides[0] + tile.head * strides[1] +
                      tile.query * query_stride + tile.key * key_stride;
    const auto& kernels = score_kernels<T>();
    if (key_stride == 1) return kernels.add_bias(tile, values, query_stride, scores, stride);
    kernels.add_strided_bias(tile, values, query_stride, key_stride, scores, stride);
  }

  template <typename T>
  void differentiate(const Tile& tile, int64_t task, const T*, T* gradients, int64_t stride) const {
    if (!is_wanted_) return;
    const auto& kernels = score_kernels<T>();
    const int64_t query_stride = expanded_gradients_.stride(3), key_stride = expanded_gradients_.stride(4);
    if (sums_queries() && sums_keys()) {
      kernels.sum_tile(tile, gradients, stride, sums_at<double>(tile, task));
    } else if (sums_queries()) {
      kernels.sum_queries(tile, gradients, stride, sums_at<double>(tile, task), key_stride);
    } else if (sums_keys()) {
      kernels.sum_keys(tile, gradients, stride, sums_at<double>(tile, task), query_stride);
    } else if (is_written_once_) {
      kernels.set_bias_gradients(tile, gradients, stride, sums_at<T>(tile, task), query_stride);
    } else {
      kernels.add_bias_gradients(tile, gradients, stride, sums_at<T>(tile, task), query_stride);
    }
  }

 private:
  /// Returns the address of the accumulated bias gradient for the tile's first query and key.
  template <typename T>
  T* sums_at(const Tile& tile, int64_t task) const {
    const auto strides = expanded_gradients_.strides();
    const int64_t split = gradients_.size(0) > 1 ? task % splits_ : 0;
    return expanded_gradients_.mutable_data_ptr<T>() + split * strides[0] + tile.batch * strides[1] +
           tile.head * strides[2] + tile.query * strides[3] + tile.key * strides[4];
  }

  /// Whether one element of the bias is added to the scores of several queries (keys). Its gradient is then a
  /// long sum, which is accumulated in float64.
  bool sums_queries() const { return values_.size(2) == 1 && shape_.queries > 1; }
  bool sums_keys() const { return values_.size(3) == 1 && shape_.keys > 1; }
  bool is_float64_sum() const { return sums_queries() || sums_keys(); }

  at::Tensor original_, values_, expanded_, gradients_, expanded_gradients_;
  ScoreShape shape_;
  int64_t splits_ = 1;
  bool is_wanted_ = false, is_written_once_ = false;
};

}  // namespace

std::unique_ptr<DifferentiableScoreTiles> make_tiles(const ScoreModNode::Bias& bias, const ScoreShape& shape,
                                                     int64_t query_dim, at::ScalarType compute_type) {
  const auto values =
      checks::broadcastable("bias", "values", materialized(bias.values.detach()), shape, query_dim);
  return std::make_unique<BiasTiles>(bias.values, values.to(compute_type), shape);
}

}  // namespace attend::cpu
