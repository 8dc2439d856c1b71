#include "reference/score_mod.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/where.h>

#include "core/relative_buckets.h"
#include "core/score_mod_node.h"
#include "reference/columns.h"

namespace attend::reference {
namespace {

/// The Taylor expansion of a function around a score s: f(s + x) = value + first x + second x^2 / 2 + ...
struct Expansion {
  at::Tensor value, first, second;
};

/// Expands the function around each score, in float64.
Expansion expand(const detail::ScoreFunction& function, const at::Tensor& scores, const ScoreShape& shape) {
  const auto value = scores.to(at::kCPU, at::kDouble).transpose(-2, -1).clone(at::MemoryFormat::Contiguous);
  const auto first = at::empty_like(value), second = at::empty_like(value);
  for_each_column(shape, [&](const detail::PositionTile& column, int64_t offset) {
    function.expand(column, value.mutable_data_ptr<double>() + offset,
                    first.mutable_data_ptr<double>() + offset, second.mutable_data_ptr<double>() + offset,
                    shape.rows);
  });
  const auto like_scores = [&](const at::Tensor& tensor) {
    return tensor.transpose(-2, -1).to(scores.options());
  };
  return {like_scores(value), like_scores(first), like_scores(second)};
}

/// Applies a score modification; one overload for each kind.
struct Modified {
  const at::Tensor& scores;
  const SymScoreShape& shape;
  int64_t query_dim;

  at::Tensor operator()(const ScoreModNode::Alibi& alibi) const {
    const auto options = scores.options().dtype(at::kLong);
    const auto first = shape.first_row + shape.keys - shape.queries;
    const auto query = at::arange(first, first + shape.rows, options).view({-1, 1});
    const auto distance = (query - at::arange(shape.keys, options)).abs().to(scores.scalar_type());
    const auto slopes =
        alibi.slopes.dim() == 1 ? alibi.slopes.view({1, -1, 1, 1}) : alibi.slopes.unsqueeze(-1).unsqueeze(-1);
    return scores - slopes.to(scores.scalar_type()) * distance;
  }

  at::Tensor operator()(const ScoreModNode::Bias& bias) const {
    const auto values = checks::with_score_dims(bias.values, query_dim);
    return scores + checks::rows_of(values, shape).to(scores.scalar_type());
  }

  at::Tensor operator()(const ScoreModNode::RelativeBias& bias) const {
    const auto sizes = integers_of(shape);
    const auto query = at::arange(sizes.first_row, sizes.first_row + sizes.rows, at::kLong).view({-1, 1});
    const auto distances = query - at::arange(sizes.keys, at::kLong) + (sizes.keys - 1);
    const auto buckets = buckets_by_distance(sizes, bias.buckets).index_select(0, distances.view(-1));
    const auto values = bias.table.to(scores.scalar_type()).index_select(0, buckets.to(scores.device()));
    return scores + values.view({sizes.rows, sizes.keys, sizes.heads}).permute({2, 0, 1});
  }

  at::Tensor operator()(const ScoreModNode::Softcap& softcap) const {
    return at::tanh(scores / softcap.cap) * softcap.cap;
  }

  /// Returns the Taylor expansion at x = s - detach(s) = 0, which has the value and the first two derivatives
  /// of the function, also in forward mode. Terms with a score or derivative that is not finite are omitted.
  at::Tensor operator()(const ScoreModNode::Lambda& lambda) const {
    const auto constant = scores.detach();
    const auto [value, first, second] = expand(*lambda.function, constant, integers_of(shape));
    const auto x = at::where(at::isfinite(constant), scores - constant, 0.0);
    const auto finite = [](const at::Tensor& derivative) {
      return at::where(at::isfinite(derivative), derivative, 0.0);
    };
    return value + finite(first) * x + finite(second) * (x * x) * 0.5;
  }

  at::Tensor operator()(const ScoreModNode::Composed& composed) const {
    return modify_scores(modify_scores(scores, composed.first, shape, query_dim), composed.second, shape,
                         query_dim);
  }
};

}  // namespace

at::Tensor modify_scores(const at::Tensor& scores, const ScoreMod& score_mod, const SymScoreShape& shape,
                         int64_t query_dim) {
  if (!score_mod.defined()) return scores;
  return std::visit(Modified{scores, shape, query_dim}, score_mod.node()->kind);
}

}  // namespace attend::reference
