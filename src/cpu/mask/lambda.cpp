#include <utility>

#include "cpu/mask/kernels.h"
#include "cpu/mask/make_tiles.h"
#include "cpu/mask/positions.h"

namespace attend::cpu {
namespace {

/// The mask that a lambda computes from positions.
class LambdaTiles final : public MaskTiles {
 public:
  LambdaTiles(std::shared_ptr<const detail::MaskFunction> function, const ScoreShape& shape)
      : function_(std::move(function)), keys_(shape.keys), offset_(shape.keys - shape.queries) {}

  int64_t key_end(int64_t) const override { return keys_; }

  /// Evaluates the lambda for one key at a time, until two elements of the mask differ.
  TileState state(const Tile& tile) const override {
    uint8_t allowed[kMaxTileQueries];
    auto column = positions_of(tile, offset_);
    column.keys = 1;
    auto tile_state = TileState::empty;
    for (int64_t j = 0; j < tile.keys; ++j, ++column.first.key) {
      function_->fill(column, allowed, tile.queries);
      const auto key_state = mask_kernels().state(allowed, tile.queries);
      if (key_state == TileState::partial || (j > 0 && key_state != tile_state)) return TileState::partial;
      tile_state = key_state;
    }
    return tile_state;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    function_->fill(positions_of(tile, offset_), allowed, stride);
  }

 private:
  std::shared_ptr<const detail::MaskFunction> function_;
  int64_t keys_, offset_;
};

}  // namespace

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Lambda& mask, const ScoreShape& shape, int64_t,
                                      MaskStates& states) {
  return with_cell_states(std::make_unique<LambdaTiles>(mask.function, shape),
                          {shape.batch, shape.heads, shape.queries, shape.keys}, states);
}

}  // namespace attend::cpu
