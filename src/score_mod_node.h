#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "checks.h"
#include "cpu/tiles.h"

namespace attend {

/// What a backward pass over a modification's tiles will be.
struct BackwardPlan {
  int64_t splits;             ///< the number of tasks that the keys of a head are split into
  bool visits_all;            ///< whether every score will be visited
  at::ArrayRef<bool> wanted;  ///< for each tensor of the node, whether its gradient is asked for
};

/// A score modification as the fused kernel asks for it, with the gradients of its tensors.
class BoundScoreMod : public cpu::ScoreTiles {
 public:
  /// True where batch elements (heads) add to the same gradients, so that they must not run at once.
  virtual bool shares_gradients_over_batch() const { return false; }
  virtual bool shares_gradients_over_heads() const { return false; }
  /// Called before the first `backward`, which sums gradients of the tensors that are wanted.
  virtual void begin_backward(const BackwardPlan& /*plan*/) {}
  /// For each tensor of the node, in its shape and dtype; undefined where it was not wanted.
  virtual std::vector<at::Tensor> gradients() const { return {}; }
};

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

  /// The modified scores [B, H, Lq, Lk] (the rows of `shape`), in the dtype of `scores`; differentiable.
  virtual at::Tensor apply(const at::Tensor& scores, const ScoreShape& shape, int64_t query_dim) const = 0;

  /// Where all it does is to add a tensor to the scores: that tensor, in four dimensions that broadcast to
  /// them; else undefined.
  virtual at::Tensor added(const ScoreShape& /*shape*/, int64_t /*query_dim*/) const { return {}; }

  /// The tensors that have gradients.
  virtual std::vector<at::Tensor> tensors() const { return {}; }

  /// For scores of dtype `compute_type` (float32 or float64), on the CPU.
  virtual std::unique_ptr<BoundScoreMod> bind(const ScoreShape& shape, int64_t query_dim,
                                              at::ScalarType compute_type) const = 0;
};

}  // namespace attend
