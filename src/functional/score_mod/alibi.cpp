#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>
#include <attend/score_mod.h>

#include <utility>

#include "core/inputs.h"
#include "core/score_mod_node.h"
#include "cpu/score_mod/kernels.h"
#include "functional/score_mod/sum_in_order.h"

namespace attend {
namespace {

using cpu::Tile;

class BoundAlibi final : public BoundScoreMod {
 public:
  /// `original`: as the user gave them; `slopes`: of the compute type, expanded to [B, H].
  BoundAlibi(at::Tensor original, at::Tensor slopes, const ScoreShape& shape)
      : original_(std::move(original)), slopes_(std::move(slopes)), offset_(shape.keys - shape.queries) {}

  bool reads_scores() const override { return false; }
  void want_gradients(at::ArrayRef<bool> wanted) override { is_wanted_ = wanted[0]; }
  /// Each task adds up its own.
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

  void forward(const Tile& tile, float* scores, int64_t stride) const override {
    subtract(tile, scores, stride);
  }
  void forward(const Tile& tile, double* scores, int64_t stride) const override {
    subtract(tile, scores, stride);
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
  /// Between the tile's first query and key.
  int64_t first_distance(const Tile& tile) const { return tile.query + offset_ - tile.key; }

  template <typename T>
  void subtract(const Tile& tile, T* scores, int64_t stride) const {
    const T slope =
        slopes_.const_data_ptr<T>()[tile.batch * slopes_.stride(0) + tile.head * slopes_.stride(1)];
    cpu::score_kernels<T>().alibi(tile, slope, first_distance(tile), scores, stride);
  }

  template <typename T>
  void accumulate(const Tile& tile, int64_t task, const T* gradients, int64_t stride) const {
    const int64_t place = ((task % splits_) * slopes_.size(0) + tile.batch) * slopes_.size(1) + tile.head;
    gradients_.mutable_data_ptr<double>()[place] -=
        cpu::score_kernels<T>().alibi_backward(tile, first_distance(tile), gradients, stride);
  }

  at::Tensor original_, slopes_, gradients_;
  int64_t offset_, splits_ = 1;
  bool is_wanted_ = false;
};

class Alibi final : public ScoreModNode {
 public:
  explicit Alibi(at::Tensor slopes) : slopes_(std::move(slopes)) {}

  void check(const char* function, const ScoreShape& shape, const at::Tensor& query) const override {
    checks::on_device(function, "slopes", slopes_, query.device());
    if (slopes_.scalar_type() != query.scalar_type() && slopes_.scalar_type() != at::kFloat) {
      checks::fail(function, "slopes", "the query's dtype or float32", checks::describe(slopes_));
    }
    const bool per_batch = slopes_.dim() == 2;
    if (slopes_.size(-1) != shape.heads || (per_batch && slopes_.size(0) != shape.batch)) {
      checks::fail(function, "slopes",
                   c10::str("one per head, [", shape.heads, "] or [", shape.batch, ", ", shape.heads, "]"),
                   checks::describe(slopes_));
    }
  }

  at::Tensor apply(const at::Tensor& scores, const ScoreShape& shape, int64_t) const override {
    const auto options = scores.options().dtype(at::kLong);
    const int64_t first = shape.first_row + shape.keys - shape.queries;
    const auto query = at::arange(first, first + shape.rows, options).view({-1, 1});
    const auto distance = (query - at::arange(shape.keys, options)).abs().to(scores.scalar_type());
    const auto slopes =
        slopes_.dim() == 1 ? slopes_.view({1, -1, 1, 1}) : slopes_.unsqueeze(-1).unsqueeze(-1);
    return scores - slopes.to(scores.scalar_type()) * distance;
  }

  std::vector<at::Tensor> tensors() const override { return {slopes_}; }

  std::shared_ptr<const ScoreModNode> with_tensors(at::TensorList tensors) const override {
    return std::make_shared<Alibi>(tensors[0]);
  }

  std::unique_ptr<BoundScoreMod> bind(const ScoreShape& shape, int64_t,
                                      at::ScalarType compute_type) const override {
    const auto slopes = materialized(slopes_.detach()).to(compute_type).expand({shape.batch, shape.heads});
    return std::make_unique<BoundAlibi>(slopes_, slopes, shape);
  }

 private:
  at::Tensor slopes_;
};

}  // namespace

ScoreMod alibi(const at::Tensor& slopes) {
  checks::is_strided("alibi", "slopes", slopes);
  checks::is_floating("alibi", "slopes", slopes);
  if (slopes.dim() < 1 || slopes.dim() > 2) {
    checks::fail("alibi", "slopes", "[H] or [B, H]", checks::describe(slopes));
  }
  return ScoreMod(std::make_shared<Alibi>(slopes));
}

}  // namespace attend
