#include <algorithm>
#include <utility>
#include <vector>

#include "cpu/mask/kernels.h"
#include "cpu/mask/make_tiles.h"

namespace attend::cpu {
namespace {

/// The intersection of masks.
class IntersectionTiles final : public MaskTiles {
 public:
  /// `masks` must not be empty.
  explicit IntersectionTiles(std::vector<std::unique_ptr<MaskTiles>> masks) : masks_(std::move(masks)) {}

  int64_t key_end(int64_t batch) const override {
    int64_t end = masks_.front()->key_end(batch);
    for (const auto& mask : masks_) end = std::min(end, mask->key_end(batch));
    return end;
  }

  TileState state(const Tile& tile) const override {
    auto result = TileState::full;
    for (const auto& mask : masks_) {
      const auto state = mask->state(tile);
      if (state == TileState::empty) return state;
      if (state == TileState::partial) result = state;
    }
    return result;
  }

  /// Fills the other masks for a few keys at a time, so that the buffers of nested masks take little stack
  /// memory.
  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    constexpr int64_t kPartKeys = 16;
    uint8_t other[kPartKeys * kMaxTileQueries];
    masks_.front()->fill(tile, allowed, stride);
    for (size_t n = 1; n < masks_.size(); ++n) {
      for (int64_t j = 0; j < tile.keys; j += kPartKeys) {
        auto part = tile;
        part.key += j;
        part.keys = std::min(kPartKeys, tile.keys - j);
        masks_[n]->fill(part, other, tile.queries);
        mask_kernels().intersect(part, other, tile.queries, allowed + j * stride, stride);
      }
    }
  }

 private:
  std::vector<std::unique_ptr<MaskTiles>> masks_;
};

/// The negation of a mask.
class NegatedTiles final : public MaskTiles {
 public:
  NegatedTiles(std::unique_ptr<MaskTiles> inner, int64_t keys) : inner_(std::move(inner)), keys_(keys) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    switch (inner_->state(tile)) {
      case TileState::empty:
        return TileState::full;
      case TileState::full:
        return TileState::empty;
      case TileState::partial:
        break;
    }
    return TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    inner_->fill(tile, allowed, stride);
    mask_kernels().negate(tile, allowed, stride);
  }

 private:
  std::unique_ptr<MaskTiles> inner_;
  int64_t keys_;
};

/// Appends the tiles of `mask`, or those of its operands if `mask` is an intersection.
void append_operands(const Mask& mask, const ScoreShape& shape, int64_t query_dim, MaskStates& states,
                     std::vector<std::unique_ptr<MaskTiles>>& operands) {
  if (const auto* both = std::get_if<MaskNode::Both>(&mask.node()->kind)) {
    append_operands(both->left, shape, query_dim, states, operands);
    append_operands(both->right, shape, query_dim, states, operands);
  } else {
    operands.push_back(make_mask_tiles(mask, shape, query_dim, states));
  }
}

}  // namespace

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Both& mask, const ScoreShape& shape, int64_t query_dim,
                                      MaskStates& states) {
  std::vector<std::unique_ptr<MaskTiles>> operands;
  append_operands(mask.left, shape, query_dim, states, operands);
  append_operands(mask.right, shape, query_dim, states, operands);
  return std::make_unique<IntersectionTiles>(std::move(operands));
}

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Not& mask, const ScoreShape& shape, int64_t query_dim,
                                      MaskStates& states) {
  return std::make_unique<NegatedTiles>(make_mask_tiles(mask.inner, shape, query_dim, states), shape.keys);
}

}  // namespace attend::cpu
