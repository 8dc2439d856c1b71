#pragma once

#include <attend/detail/position_tile.h>
#include <attend/dual.h>
#include <attend/export.h>

#include <cstdint>
#include <utility>

namespace attend::detail {

/// The interface of a lambda on scores, with one virtual call per tile of scores. The score of the tile's
/// query i and key j is stored at scores[j * stride + i].
class ATTEND_API ScoreFunction {
 public:
  virtual ~ScoreFunction() = default;
  /// Replaces the scores by the function's values.
  virtual void forward(const PositionTile& tile, float* scores, int64_t stride) const = 0;
  /// Replaces the scores by the function's values, in float64.
  virtual void forward(const PositionTile& tile, double* scores, int64_t stride) const = 0;
  /// Multiplies the gradients by the derivatives at the scores.
  virtual void backward(const PositionTile& tile, const float* scores, float* gradients,
                        int64_t stride) const = 0;
  /// Multiplies the gradients by the derivatives at the scores, in float64.
  virtual void backward(const PositionTile& tile, const double* scores, double* gradients,
                        int64_t stride) const = 0;
  /// Replaces the scores by the function's values, and writes its first and second derivatives.
  virtual void expand(const PositionTile& tile, double* scores, double* first, double* second,
                      int64_t stride) const = 0;
};

/// Implements the interface for the lambda `Function`, which is inlined into the loops over a tile.
template <typename Function>
class LambdaScores final : public ScoreFunction {
 public:
  explicit LambdaScores(Function function) : function_(std::move(function)) {}

  void forward(const PositionTile& tile, float* scores, int64_t stride) const override {
    apply(tile, scores, stride);
  }
  void forward(const PositionTile& tile, double* scores, int64_t stride) const override {
    apply(tile, scores, stride);
  }
  void backward(const PositionTile& tile, const float* scores, float* gradients,
                int64_t stride) const override {
    differentiate(tile, scores, gradients, stride);
  }
  void backward(const PositionTile& tile, const double* scores, double* gradients,
                int64_t stride) const override {
    differentiate(tile, scores, gradients, stride);
  }

  void expand(const PositionTile& tile, double* scores, double* first, double* second,
              int64_t stride) const override {
    for_each_row(tile, [&](const Position& start, int64_t j) {
      for (int i = 0; i < tile.queries; ++i) {
        const auto place = j * stride + i;
        const Dual<double> score(scores[place], 1.0);
        const Position at{start.batch, start.head, start.query + i, start.key};
        const Dual<Dual<double>> result = function_(Dual<Dual<double>>(score, 1), at);
        scores[place] = result.value.value;
        first[place] = result.derivative.value;
        second[place] = result.derivative.derivative;
      }
    });
  }

 private:
  template <typename Action>
  static void for_each_row(const PositionTile& tile, const Action& action) {
    Position start = tile.first;
    for (int j = 0; j < tile.keys; ++j, ++start.key) action(start, j);
  }

  template <typename T>
  void apply(const PositionTile& tile, T* scores, int64_t stride) const {
    for_each_row(tile, [&](const Position& start, int64_t j) {
      T* row = scores + j * stride;
      evaluate_row(start, tile.queries, row, [&](int n, const Position& at) {
        const Dual<T> result = function_(Dual<T>(row[n]), at);
        return result.value;
      });
    });
  }

  template <typename T>
  void differentiate(const PositionTile& tile, const T* scores, T* gradients, int64_t stride) const {
    for_each_row(tile, [&](const Position& start, int64_t j) {
      const T* row = scores + j * stride;
      T* gradient = gradients + j * stride;
      evaluate_row(start, tile.queries, gradient, [&](int n, const Position& at) {
        const Dual<T> result = function_(Dual<T>(row[n], T{1}), at);
        return gradient[n] * finite_or_zero(result.derivative);
      });
    });
  }

  Function function_;
};

}  // namespace attend::detail
