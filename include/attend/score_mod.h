#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/position.h>
#include <attend/score_lambda.h>

#include <memory>
#include <utility>

namespace attend {

class ScoreModNode;

/// How a score changes before it is masked and weighted. A small immutable value: copies share their
/// contents. The order is scale, score modification, mask, weighting.
class ATTEND_API ScoreMod {
 public:
  /// Scores stay as they are.
  ScoreMod() = default;
  explicit ScoreMod(std::shared_ptr<const ScoreModNode> node) : node_(std::move(node)) {}

  /// This modification, and after it the next.
  ScoreMod then(const ScoreMod& next) const;

  bool defined() const { return node_ != nullptr; }
  const std::shared_ptr<const ScoreModNode>& node() const { return node_; }

 private:
  std::shared_ptr<const ScoreModNode> node_;
};

/// Adds `values` to the scaled scores; -inf hides a key, unless a modification after it makes the
/// score finite again, as `softcap` does: there hide it by a mask. `values`: the query's dtype or float32, on
/// the query's device; it broadcasts to the scores as a dense mask does. Differentiable in `values`.
ATTEND_API ScoreMod bias(const at::Tensor& values);

/// Subtracts slope * |i + Lk - Lq - j| from the score of query i and key j (ALiBi, Press 2022; symmetric, so
/// that it serves with and without a causal mask). `slopes`: the query's dtype or float32, on its device, [H]
/// or [B, H]. Differentiable in `slopes`.
ATTEND_API ScoreMod alibi(const at::Tensor& slopes);

/// Adds table[bucket, h], where `bucket` is that of the distance j - (i + Lk - Lq) as `relative_bucket` has
/// it (T5's relative position bias, Raffel 2020). `table`: [buckets.count, H], as T5 stores it, the query's
/// dtype or float32, on its device. Differentiable in `table`. The fused kernel takes Lq + Lk values per
/// head, not [H, Lq, Lk].
ATTEND_API ScoreMod relative_bias(const at::Tensor& table, const RelativeBuckets& buckets = {});

/// score -> cap * tanh(score / cap): keeps scores within -cap ... cap (Gemma Team 2024, Bello 2016). Error: a
/// cap that is not a positive number in the range of float32.
ATTEND_API ScoreMod softcap(double cap);

namespace detail {
ATTEND_API ScoreMod score_mod_of(std::shared_ptr<const ScoreFunction> function);
}

/// Any modification, as a lambda of the score and of where it stands (after FlexAttention, Dong 2024),
/// compiled where it is written:
///
///     attend::score_mod([=](auto score, attend::Position at) {
///       return score - slope * std::abs(at.query - at.key);
///     })
///
/// The score is taken as `auto`: it is a `Dual` number, of float or double by the query's dtype, from which
/// the gradient follows. Arithmetic and comparison work on it, and `attend::exp`, `log`, `tanh` and `abs`.
/// Only the score has a gradient: what the lambda captures is constant. Double backward and forward mode
/// work, too; derivatives beyond the second, and those that are infinite or NaN, are taken to be 0.
///
/// The lambda is a function of its arguments alone; it is called from several threads at once, and for scores
/// that a mask hides, too. With -O2 or -O3 arithmetic, the four functions above and choices that depend on
/// positions become vectors; what is read from memory for each score does not. Error: a call with 2^31
/// queries or keys.
template <typename Function>
ScoreMod score_mod(Function function) {
  return detail::score_mod_of(std::make_shared<const detail::LambdaScores<Function>>(std::move(function)));
}

}  // namespace attend
