#include <vector>

#include "cpu/mask/kernels.h"
#include "cpu/mask/make_tiles.h"

namespace attend::cpu {
namespace {

/// The mask by which the queries of batch element b may attend to the keys before position lengths[b].
class LengthTiles final : public MaskTiles {
 public:
  /// `reads_past` states whether the kernels may read keys past the length.
  LengthTiles(const at::Tensor& lengths, int64_t keys, bool reads_past)
      : keys_(keys), reads_past_(reads_past) {
    const auto values = lengths.cpu().contiguous();
    lengths_.assign(values.const_data_ptr<int64_t>(), values.const_data_ptr<int64_t>() + values.numel());
  }

  int64_t key_end(int64_t batch) const override { return reads_past_ ? keys_ : length(batch); }

  TileState state(const Tile& tile) const override {
    const int64_t end = length(tile.batch);
    if (tile.key >= end) return TileState::empty;
    return tile.key + tile.keys <= end ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    mask_kernels().fill_length(tile, length(tile.batch), allowed, stride);
  }

 private:
  int64_t length(int64_t batch) const { return lengths_[static_cast<size_t>(batch)]; }

  std::vector<int64_t> lengths_;
  int64_t keys_;
  bool reads_past_;
};

}  // namespace

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::KeyLengths& mask, const ScoreShape& shape, int64_t,
                                      MaskStates&) {
  return std::make_unique<LengthTiles>(mask.lengths, shape.keys, /*reads_past=*/false);
}

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Prefix& mask, const ScoreShape& shape, int64_t,
                                      MaskStates&) {
  return std::make_unique<LengthTiles>(mask.lengths, shape.keys, /*reads_past=*/true);
}

}  // namespace attend::cpu
