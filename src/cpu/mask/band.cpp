#include <algorithm>

#include "cpu/mask/kernels.h"
#include "cpu/mask/make_tiles.h"

namespace attend::cpu {
namespace {

/// A distance that is larger than that of any two positions.
constexpr int64_t kUnbounded = int64_t{1} << 60;

/// The mask by which query i may attend to the keys j with i + low <= j <= i + high.
class BandTiles final : public MaskTiles {
 public:
  BandTiles(int64_t low, int64_t high, int64_t keys) : low_(low), high_(high), keys_(keys) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    const int64_t first_query = tile.query, last_query = tile.query + tile.queries - 1;
    const int64_t first_key = tile.key, last_key = tile.key + tile.keys - 1;
    if (first_key > last_query + high_ || last_key < first_query + low_) return TileState::empty;
    const bool is_full = first_key >= last_query + low_ && last_key <= first_query + high_;
    return is_full ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    mask_kernels().fill_band(tile, low_, high_, allowed, stride);
  }

 private:
  int64_t low_, high_, keys_;
};

}  // namespace

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Causal& mask, const ScoreShape& shape, int64_t,
                                      MaskStates&) {
  const int64_t offset = mask.corner == Corner::bottom_right ? shape.keys - shape.queries : 0;
  return std::make_unique<BandTiles>(-kUnbounded, offset, shape.keys);
}

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Window& mask, const ScoreShape& shape, int64_t,
                                      MaskStates&) {
  const int64_t offset = shape.keys - shape.queries;
  const int64_t low = mask.left < 0 ? -kUnbounded : offset - std::min(mask.left, kUnbounded);
  const int64_t high = mask.right < 0 ? kUnbounded : offset + std::min(mask.right, kUnbounded);
  return std::make_unique<BandTiles>(low, high, shape.keys);
}

}  // namespace attend::cpu
