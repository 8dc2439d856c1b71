#pragma once

#include <ATen/core/Tensor.h>

#include "checks.h"

namespace attend {

/// What a `ScoreMod` is made of.
class ScoreModNode {
 public:
  ScoreModNode() = default;
  ScoreModNode(const ScoreModNode&) = delete;
  ScoreModNode& operator=(const ScoreModNode&) = delete;
  virtual ~ScoreModNode() = default;

  /// Fails, in the name of `function`, where the modification does not fit scores of this shape of this
  /// query.
  virtual void check(const char* function, const ScoreShape& shape, const at::Tensor& query) const = 0;

  /// The modified scores [B, H, Lq, Lk], in the dtype of `scores`; differentiable.
  virtual at::Tensor apply(const at::Tensor& scores, const ScoreShape& shape, int64_t query_dim) const = 0;
};

}  // namespace attend
