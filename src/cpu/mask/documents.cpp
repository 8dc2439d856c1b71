#include <utility>

#include "cpu/mask/kernels.h"
#include "cpu/mask/make_tiles.h"

namespace attend::cpu {
namespace {

/// The mask by which a query may attend to the keys of its own document.
class DocumentTiles final : public MaskTiles {
 public:
  /// `ids` must be int64, expanded to [B, Lk].
  DocumentTiles(at::Tensor ids, const ScoreShape& shape)
      : ids_(std::move(ids)), keys_(shape.keys), offset_(shape.keys - shape.queries) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    return mask_kernels().document_state(tile, row(tile.batch), offset_);
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    mask_kernels().fill_documents(tile, row(tile.batch), offset_, allowed, stride);
  }

 private:
  const int64_t* row(int64_t batch) const { return ids_.const_data_ptr<int64_t>() + batch * ids_.stride(0); }

  at::Tensor ids_;
  int64_t keys_, offset_;
};

}  // namespace

std::unique_ptr<MaskTiles> make_tiles(const MaskNode::Documents& mask, const ScoreShape& shape, int64_t,
                                      MaskStates&) {
  return std::make_unique<DocumentTiles>(mask.ids.cpu().contiguous().expand({shape.batch, shape.keys}),
                                         shape);
}

}  // namespace attend::cpu
