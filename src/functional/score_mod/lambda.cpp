#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/where.h>
#include <attend/score_mod.h>

#include <utility>

#include "core/positions.h"
#include "core/score_mod_node.h"

namespace attend {
namespace {

using cpu::Tile;

class BoundLambda final : public BoundScoreMod {
 public:
  BoundLambda(std::shared_ptr<const detail::ScoreFunction> function, const ScoreShape& shape)
      : function_(std::move(function)), offset_(shape.keys - shape.queries) {}

  bool reads_scores() const override { return true; }

  void forward(const Tile& tile, float* scores, int64_t stride) const override {
    function_->forward(positions_of(tile, offset_), scores, stride);
  }
  void forward(const Tile& tile, double* scores, int64_t stride) const override {
    function_->forward(positions_of(tile, offset_), scores, stride);
  }
  void backward(const Tile& tile, int64_t, const float* scores, float* gradients,
                int64_t stride) const override {
    function_->backward(positions_of(tile, offset_), scores, gradients, stride);
  }
  void backward(const Tile& tile, int64_t, const double* scores, double* gradients,
                int64_t stride) const override {
    function_->backward(positions_of(tile, offset_), scores, gradients, stride);
  }

 private:
  std::shared_ptr<const detail::ScoreFunction> function_;
  int64_t offset_;
};

/// A function at some scores: f(s + x) = value + first x + second x^2 / 2 + ...
struct Expansion {
  at::Tensor value, first, second;
};

class Lambda final : public ScoreModNode {
 public:
  explicit Lambda(std::shared_ptr<const detail::ScoreFunction> function) : function_(std::move(function)) {}

  void check(const char* function, const ScoreShape& shape, const at::Tensor&) const override {
    check_positions(function, "score_mod", shape);
  }

  /// The expansion, with x = s - s in which only the first s is differentiated: it has the function's value
  /// and its first two derivatives, in forward mode, too. Where a score or a derivative is infinite, the term
  /// is left out.
  at::Tensor apply(const at::Tensor& scores, const ScoreShape& shape, int64_t) const override {
    const auto at = scores.detach();
    const auto [value, first, second] = expand(at, shape);
    const auto x = at::where(at::isfinite(at), scores - at, 0.0);
    const auto finite = [](const at::Tensor& derivative) {
      return at::where(at::isfinite(derivative), derivative, 0.0);
    };
    return value + finite(first) * x + finite(second) * (x * x) * 0.5;
  }

  std::unique_ptr<BoundScoreMod> bind(const ScoreShape& shape, int64_t, at::ScalarType) const override {
    return std::make_unique<BoundLambda>(function_, shape);
  }

 private:
  /// In float64, a key at a time.
  Expansion expand(const at::Tensor& scores, const ScoreShape& shape) const {
    const auto value = scores.to(at::kCPU, at::kDouble).transpose(-2, -1).clone(at::MemoryFormat::Contiguous);
    const auto first = at::empty_like(value), second = at::empty_like(value);
    for_each_column(shape, [&](const detail::PositionTile& column, int64_t place) {
      function_->expand(column, value.mutable_data_ptr<double>() + place,
                        first.mutable_data_ptr<double>() + place, second.mutable_data_ptr<double>() + place,
                        shape.rows);
    });
    const auto as_given = [&](const at::Tensor& tensor) {
      return tensor.transpose(-2, -1).to(scores.options());
    };
    return {as_given(value), as_given(first), as_given(second)};
  }

  std::shared_ptr<const detail::ScoreFunction> function_;
};

}  // namespace

ScoreMod detail::score_mod_of(std::shared_ptr<const ScoreFunction> function) {
  return ScoreMod(std::make_shared<Lambda>(std::move(function)));
}

}  // namespace attend
