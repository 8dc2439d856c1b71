#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "core/checks.h"
#include "cpu/mask/tiles.h"

namespace attend {

/// A score modification as the fused kernel asks for it, with the gradients of its tensors.
class BoundScoreMod : public cpu::ScoreTiles {
 public:
  /// Tells for each tensor of the node whether `backward` will sum its gradients; first of all.
  virtual void want_gradients(at::ArrayRef<bool> /*wanted*/) {}
  /// True where batch elements (heads) add to the same gradients, so that they must not run at once.
  virtual bool shares_gradients_over_batch() const { return false; }
  virtual bool shares_gradients_over_heads() const { return false; }
  /// Sets the gradients to zero; `splits`: the number of tasks that the keys of a head are split into;
  /// `visits_all`: whether `backward` will be called for every score.
  virtual void begin_backward(int64_t /*splits*/, bool /*visits_all*/) {}
  /// For each tensor of the node, in its shape and dtype; undefined where it was not wanted.
  virtual std::vector<at::Tensor> gradients() const { return {}; }
};

/// What a `ScoreMod` is made of.
class ScoreModNode : public std::enable_shared_from_this<ScoreModNode> {
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

  /// The same modification of other tensors: in the place of each of `tensors`, one of its shape and dtype.
  virtual std::shared_ptr<const ScoreModNode> with_tensors(at::TensorList /*tensors*/) const {
    return shared_from_this();
  }

  /// For scores of dtype `compute_type` (float32 or float64), on the CPU.
  virtual std::unique_ptr<BoundScoreMod> bind(const ScoreShape& shape, int64_t query_dim,
                                              at::ScalarType compute_type) const = 0;
};

}  // namespace attend
