#include <utility>
#include <vector>

#include "core/inputs.h"
#include "cpu/mask/kernels.h"
#include "cpu/mask/make_tiles.h"

namespace attend::cpu {
namespace {

/// The mask that a boolean tensor holds.
class DenseTiles final : public MaskTiles {
 public:
  /// `allowed` must be expanded to [B, H, Lq, Lk].
  explicit DenseTiles(at::Tensor allowed)
      : allowed_(std::move(allowed)), strides_(allowed_.strides().vec()), keys_(allowed_.size(3)) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    return mask_kernels().dense_state(tile, dense_tile(tile));
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    mask_kernels().fill_dense(tile, dense_tile(tile), allowed, stride);
  }

 private:
  DenseTile dense_tile(const Tile& tile) const {
    const auto* first = reinterpret_cast<const uint8_t*>(allowed_.const_data_ptr<bool>());
    return {first + tile.batch * strides_[0] + tile.head * strides_[1] + tile.query * strides_[2] +
                tile.key * strides_[3],
            strides_[2], strides_[3]};
  }

  at::Tensor allowed_;
  std::vector<int64_t> strides_;
  int64_t keys_;
};

}  // namespace

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Dense& mask, const ScoreShape& shape, int64_t query_dim,
                                      MaskStates& states) {
  const auto allowed = checks::broadcastable("dense", "mask", mask.allowed, shape, query_dim);
  const auto all = materialized(allowed);
  auto tiles =
      std::make_unique<DenseTiles>(all.expand({shape.batch, shape.heads, shape.queries, shape.keys}));
  const auto distinct = [&](int64_t dim) { return all.stride(dim) == 0 ? 1 : all.size(dim); };
  return with_cell_states(std::move(tiles), {distinct(0), distinct(1), distinct(2), distinct(3)}, states);
}

}  // namespace attend::cpu
