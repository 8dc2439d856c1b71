#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <attend/mask.h>

#include <utility>
#include <vector>

#include "core/mask_node.h"
#include "core/positions.h"

namespace attend {
namespace {

using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

class LambdaTiles final : public MaskTiles {
 public:
  LambdaTiles(std::shared_ptr<const detail::MaskFunction> function, const ScoreShape& shape)
      : function_(std::move(function)), keys_(shape.keys), offset_(shape.keys - shape.queries) {}

  int64_t key_end(int64_t) const override { return keys_; }

  /// A key at a time, until two scores differ.
  TileState state(const Tile& tile) const override {
    std::vector<uint8_t> allowed(static_cast<size_t>(tile.queries));
    auto column = positions_of(tile, offset_);
    column.keys = 1;
    uint8_t any = 0, all = 1;
    for (int64_t j = 0; j < tile.keys; ++j, ++column.first.key) {
      function_->fill(column, allowed.data(), tile.queries);
      for (const uint8_t entry : allowed) {
        any |= entry;
        all &= entry;
      }
      if (any != 0 && all == 0) return TileState::partial;
    }
    return any == 0 ? TileState::empty : TileState::full;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    function_->fill(positions_of(tile, offset_), allowed, stride);
  }

 private:
  std::shared_ptr<const detail::MaskFunction> function_;
  int64_t keys_, offset_;
};

class LambdaNode final : public MaskNode {
 public:
  explicit LambdaNode(std::shared_ptr<const detail::MaskFunction> function)
      : function_(std::move(function)) {}

  void check(const char* function, const ScoreShape& shape, int64_t, at::Device) const override {
    check_positions(function, "mask_mod", shape);
  }

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    const auto columns = at::empty({shape.batch, shape.heads, shape.keys, shape.rows}, at::kBool);
    auto* data = reinterpret_cast<uint8_t*>(columns.mutable_data_ptr<bool>());
    for_each_column(shape, [&](const detail::PositionTile& column, int64_t place) {
      function_->fill(column, data + place, shape.rows);
    });
    return columns.transpose(-2, -1).to(device);
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t) const override {
    return std::make_unique<LambdaTiles>(function_, shape);
  }

 private:
  std::shared_ptr<const detail::MaskFunction> function_;
};

}  // namespace

Mask detail::mask_mod_of(std::shared_ptr<const MaskFunction> function) {
  return Mask(std::make_shared<LambdaNode>(std::move(function)));
}

}  // namespace attend
