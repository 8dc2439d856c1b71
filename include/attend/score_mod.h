#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <memory>

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

/// Adds `values` to the scaled scores; -inf hides a key. `values`: the query's dtype or float32, on the
/// query's device; it broadcasts to the scores as a dense mask does. Differentiable in `values`.
ATTEND_API ScoreMod bias(const at::Tensor& values);

/// Subtracts slope * |i + Lk - Lq - j| from the score of query i and key j (ALiBi, Press 2022; symmetric, so
/// that it serves with and without a causal mask). `slopes`: the query's dtype or float32, on its device, [H]
/// or [B, H]. Differentiable in `slopes`.
ATTEND_API ScoreMod alibi(const at::Tensor& slopes);

/// score -> cap * tanh(score / cap): keeps scores within -cap ... cap (Gemma Team 2024, Bello 2016). Error: a
/// cap that is not a positive number in the range of float32.
ATTEND_API ScoreMod softcap(double cap);

}  // namespace attend
