#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "cpu/score_mod/tiles.h"

namespace attend::cpu {

/// A score modification of one call, and the gradients of its tensors, in the order of `tensors_of`.
class DifferentiableScoreTiles : public ScoreTiles {
 public:
  /// Sets for each tensor whether `backward` must accumulate its gradient. Must be called before the other
  /// functions.
  virtual void want_gradients(at::ArrayRef<bool> /*wanted*/) {}
  /// Whether all batch elements (heads) add to the same gradients, so that they must not be computed
  /// concurrently.
  virtual bool shares_gradients_over_batch() const { return false; }
  virtual bool shares_gradients_over_heads() const { return false; }
  /// Sets the gradients to zero. `splits` is the number of tasks into which the keys of a head are split;
  /// `visits_all` states whether `backward` will be called for every score.
  virtual void begin_backward(int64_t /*splits*/, bool /*visits_all*/) {}
  /// Returns the gradient of each tensor, in the shape and dtype of the tensor; undefined where the gradient
  /// is not wanted.
  virtual std::vector<at::Tensor> gradients() const { return {}; }
};

/// Implements the virtual functions of `ScoreTiles` for float and double by two templates of the derived
/// class:
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
