#pragma once

#include <ATen/core/Tensor.h>
#include <attend/detail/score_lambda.h>
#include <attend/dual.h>
#include <attend/export.h>
#include <attend/position.h>
#include <attend/positional_encoding.h>

#include <memory>
#include <utility>

namespace attend {

struct ScoreModNode;

/// How a score changes before it is masked and weighted. A small immutable value: copies share their
/// contents. The order is scale, score modification, mask, weighting.
class ATTEND_API ScoreMod {
 public:
  /// The default, which changes no score.
  ScoreMod() = default;
  /// For internal use: makes the score modification with this data.
  explicit ScoreMod(std::shared_ptr<const ScoreModNode> node) : node_(std::move(node)) {}

  /// Returns this modification followed by `next`.
  ScoreMod then(const ScoreMod& next) const;

  /// False for the default, which changes nothing.
  bool defined() const { return node_ != nullptr; }
  /// For internal use: the data of the modification; null for the default.
  const std::shared_ptr<const ScoreModNode>& node() const { return node_; }

 private:
  std::shared_ptr<const ScoreModNode> node_;
};

/// Adds `values` to the scaled scores. -inf hides a key, unless a later modification makes the score finite
/// again, as `softcap` does; use a mask in this case. `values` has the query's dtype or float32, is on the
/// query's device, and broadcasts to the scores as a dense mask does. Differentiable in `values`.
ATTEND_API ScoreMod bias(const at::Tensor& values);

/// Subtracts slope * |i + Lk - Lq - j| from the score of query i and key j (ALiBi, Press 2022; symmetric, so
/// that it can be used with and without a causal mask). `slopes` is [H] or [B, H], in the query's dtype or
/// float32, on the query's device. Differentiable in `slopes`.
ATTEND_API ScoreMod alibi(const at::Tensor& slopes);

/// Adds table[bucket, h], where `bucket` is `relative_bucket` of the distance j - (i + Lk - Lq) (T5's
/// relative position bias, Raffel 2020). `table` is [buckets.count, H], as T5 stores it, in the query's dtype
/// or float32, on the query's device. Differentiable in `table`. The fused kernel stores Lq + Lk - 1 values
/// per head instead of Lq * Lk.
ATTEND_API ScoreMod relative_bias(const at::Tensor& table, const RelativeBuckets& buckets = {});

/// Replaces each score by cap * tanh(score / cap), which is in (-cap, cap) (Gemma Team 2024, Bello 2016).
/// Error: a cap that is not positive, or not in the range of normal float32 values.
ATTEND_API ScoreMod softcap(double cap);

namespace detail {
/// The score modification of a lambda.
ATTEND_API ScoreMod score_mod_of(std::shared_ptr<const ScoreFunction> function);
}  // namespace detail

/// The score modification that a lambda defines, as in FlexAttention (Dong 2024). The lambda gets a score and
/// its position, and returns the modified score:
///
///     attend::score_mod([=](auto score, attend::Position at) {
///       return score - slope * std::abs(at.query - at.key);
///     })
///
/// The parameter `score` must be declared `auto`: it is an `attend::Dual` number of float, or of double for a
/// float64 query, which carries the derivative from which the gradient is computed. Arithmetic, comparison,
/// `attend::exp`, `log`, `tanh` and `abs` work on it. Only the score has a gradient: what the lambda captures
/// is constant. Double backward and forward mode are supported; derivatives beyond the second, and
/// derivatives that are infinite or NaN, are treated as 0.
///
/// The lambda must be a pure function of its arguments; several threads call it concurrently, also for scores
/// that a mask hides. With -O2 or -O3 the compiler vectorises arithmetic, the four functions above and
/// choices that depend on positions, but not loads from memory for each score. Error: a call of `attention`
/// with 2^31 or more queries or keys.
template <typename Function>
ScoreMod score_mod(Function function) {
  return detail::score_mod_of(std::make_shared<const detail::LambdaScores<Function>>(std::move(function)));
}

}  // namespace attend
