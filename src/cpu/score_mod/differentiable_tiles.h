#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "cpu/score_mod/tiles.h"

namespace attend::cpu {

/// A score modification of one call, with the gradients of its tensors: those of `tensors_of`.
class DifferentiableScoreTiles : public ScoreTiles {
 public:
  /// Sets for each tensor whether `backward` accumulates its gradient. Called before the other functions.
  virtual void want_gradients(at::ArrayRef<bool> /*wanted*/) {}
  /// True where batch elements (heads) add to the same gradients, so that they must not run concurrently.
  virtual bool shares_gradients_over_batch() const { return false; }
  virtual bool shares_gradients_over_heads() const { return false; }
  /// Sets the gradients to zero. `splits`: the number of tasks that the keys of a head are split into;
  /// `visits_all`: whether `backward` will be called for every score.
  virtual void begin_backward(int64_t /*splits*/, bool /*visits_all*/) {}
  /// For each tensor its gradient, in its shape and dtype; undefined where it is not wanted.
  virtual std::vector<at::Tensor> gradients() const { return {}; }
};

/// Implements both precisions of `ScoreTiles` by two templates of the derived class:
///   template <typename T> void modify(const Tile& tile, T* scores, int64_t stride) const;
///   template <typename T> void differentiate(const Tile& tile, int64_t task, const T* scores, T* gradients,
///                                            int64_t stride) const;
template <typename Derived>
class ScoreTilesBase : public DifferentiableScoreTiles {
 public:
  void forward(const Tile& tile, float* scores, int64_t stride) const final {
    derived().modify(tile, scores, stride);
  }
  void forward(const Tile& tile, double* scores, int64_t stride) const final {
    derived().modify(tile, scores, stride);
  }
  void backward(const Tile& tile, int64_t task, const float* scores, float* gradients,
                int64_t stride) const final {
    derived().differentiate(tile, task, scores, gradients, stride);
  }
  void backward(const Tile& tile, int64_t task, const double* scores, double* gradients,
                int64_t stride) const final {
    derived().differentiate(tile, task, scores, gradients, stride);
  }

 private:
  const Derived& derived() const { return static_cast<const Derived&>(*this); }
};

}  // namespace attend::cpu
