#include <ATen/TensorOperators.h>
#include <ATen/ops/ones_like.h>
#include <attend/mask.h>

#include <algorithm>

#include "core/mask_node.h"
#include "functional/mask/positions.h"

namespace attend {
namespace {

using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

/// Query i may attend to the keys i + low <= j <= i + high.
class BandTiles final : public MaskTiles {
 public:
  BandTiles(int64_t low, int64_t high, int64_t keys) : low_(low), high_(high), keys_(keys) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    const int64_t first_query = tile.query, last_query = tile.query + tile.queries - 1;
    const int64_t first_key = tile.key, last_key = tile.key + tile.keys - 1;
    if (first_key > last_query + high_ || last_key < first_query + low_) return TileState::empty;
    const bool full = first_key >= last_query + low_ && last_key <= first_query + high_;
    return full ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    for (int64_t j = 0; j < tile.keys; ++j) {
      // Which queries see key j: those from j - high on, up to j - low.
      const int64_t key = tile.key + j - tile.query;
      const int64_t begin = std::clamp(key - high_, int64_t{0}, tile.queries);
      const int64_t end = std::clamp(key - low_ + 1, begin, tile.queries);
      uint8_t* row = allowed + j * stride;
      std::fill(row, row + begin, uint8_t{0});
      std::fill(row + begin, row + end, uint8_t{1});
      std::fill(row + end, row + tile.queries, uint8_t{0});
    }
  }

 private:
  int64_t low_, high_, keys_;
};

/// Farther than any two positions are apart.
constexpr int64_t kUnbounded = int64_t{1} << 60;

class Causal final : public MaskNode {
 public:
  explicit Causal(Corner corner) : corner_(corner) {}

  void check(const char*, const ScoreShape&, int64_t, at::Device) const override {}

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    const int64_t offset = corner_ == Corner::bottom_right ? shape.keys - shape.queries : 0;
    return key_row(shape, device) <= query_column(shape, device) + offset;
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t) const override {
    const int64_t offset = corner_ == Corner::bottom_right ? shape.keys - shape.queries : 0;
    return std::make_unique<BandTiles>(-kUnbounded, offset, shape.keys);
  }

  bool is_top_left_causal(const ScoreShape& shape) const override {
    return corner_ == Corner::top_left || shape.queries == shape.keys;
  }

 private:
  Corner corner_;
};

class Window final : public MaskNode {
 public:
  Window(int64_t left, int64_t right) : left_(left), right_(right) {}

  void check(const char*, const ScoreShape&, int64_t, at::Device) const override {}

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    const auto distance = key_row(shape, device) - query_column(shape, device) - (shape.keys - shape.queries);
    auto allowed = at::ones_like(distance, distance.options().dtype(at::kBool));
    if (left_ >= 0) allowed = allowed & (distance >= -left_);
    if (right_ >= 0) allowed = allowed & (distance <= right_);
    return allowed;
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t) const override {
    const int64_t offset = shape.keys - shape.queries;
    const int64_t low = left_ < 0 ? -kUnbounded : offset - std::min(left_, kUnbounded);
    const int64_t high = right_ < 0 ? kUnbounded : offset + std::min(right_, kUnbounded);
    return std::make_unique<BandTiles>(low, high, shape.keys);
  }

 private:
  int64_t left_, right_;
};

}  // namespace

Mask causal(Corner corner) {
  if (corner != Corner::bottom_right && corner != Corner::top_left) {
    checks::fail("causal", "corner", "bottom_right or top_left", c10::str(static_cast<int64_t>(corner)));
  }
  return Mask(std::make_shared<Causal>(corner));
}

Mask window(int64_t left, int64_t right) {
  if (left < -1) checks::fail("window", "left", "-1 (unbounded) or more", c10::str(left));
  if (right < -1) checks::fail("window", "right", "-1 (unbounded) or more", c10::str(right));
  return Mask(std::make_shared<Window>(left, right));
}

}  // namespace attend
