#pragma once

#include <attend/detail/position_tile.h>
#include <attend/export.h>

#include <cstdint>
#include <utility>

namespace attend::detail {

/// The interface of a mask lambda, with one virtual call per tile of scores.
class ATTEND_API MaskFunction {
 public:
  virtual ~MaskFunction() = default;
  /// Sets allowed[j * stride + i] to 1 or 0 for the tile's query i and key j.
  virtual void fill(const PositionTile& tile, uint8_t* allowed, int64_t stride) const = 0;
};

/// Implements the interface for the lambda `Function`, which is inlined into the loop over a tile.
template <typename Function>
class LambdaMask final : public MaskFunction {
 public:
  explicit LambdaMask(Function function) : function_(std::move(function)) {}

  void fill(const PositionTile& tile, uint8_t* allowed, int64_t stride) const override {
    Position start = tile.first;
    for (int j = 0; j < tile.keys; ++j, ++start.key) {
      evaluate_row(start, tile.queries, allowed + j * stride,
                   [&](int, const Position& at) { return static_cast<uint8_t>(function_(at) ? 1 : 0); });
    }
  }

 private:
  Function function_;
};

}  // namespace attend::detail
