#include "cpu/mask/cell_states.h"

#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "cpu/simd/sizes.h"

namespace attend::cpu {
namespace {

/// The division of one dimension of a mask, of `size` elements, into cells of `cell` elements.
template <int64_t cell>
struct Cells {
  int64_t size;

  int64_t count() const { return divide_up(size, cell); }
  bool is_shared() const { return size == 1; }  // by all positions, so that there is one element
  int64_t at(int64_t position) const { return is_shared() ? 0 : position / cell; }
  /// Returns the number of elements of cell n.
  int64_t elements(int64_t n) const { return std::min(cell, size - n * cell); }
  /// Whether the positions [begin, end) form whole cells.
  bool are_whole(int64_t begin, int64_t end) const {
    return is_shared() || (begin % cell == 0 && (end % cell == 0 || end == size));
  }
};

class CellStateTiles final : public MaskTiles {
 public:
  CellStateTiles(std::unique_ptr<MaskTiles> mask, const MaskSizes& sizes, at::Tensor states)
      : mask_(std::move(mask)),
        states_(std::move(states)),
        data_(states_.mutable_data_ptr<uint8_t>()),
        sizes_(sizes),
        rows_{sizes.queries},
        columns_{sizes.keys} {}

  int64_t key_end(int64_t batch) const override { return mask_->key_end(batch); }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    mask_->fill(tile, allowed, stride);
  }

  /// Returns the same state as the mask itself would.
  TileState state(const Tile& tile) const override {
    const int64_t query_end = tile.query + tile.queries, key_end = tile.key + tile.keys;
    bool any_allowed = false, any_hidden = false;
    for (int64_t row = rows_.at(tile.query); row <= rows_.at(query_end - 1); ++row) {
      for (int64_t column = columns_.at(tile.key); column <= columns_.at(key_end - 1); ++column) {
        const auto state = cell_state(tile, row, column);
        any_allowed |= state != TileState::empty;
        any_hidden |= state != TileState::full;
        if (!any_allowed || !any_hidden) continue;
        const bool is_whole = rows_.are_whole(tile.query, query_end) && columns_.are_whole(tile.key, key_end);
        return is_whole ? TileState::partial : mask_->state(tile);
      }
    }
    return any_allowed ? TileState::full : TileState::empty;
  }

 private:
  /// Returns the state of a cell. Several threads may classify a cell concurrently; they store the same
  /// state.
  TileState cell_state(const Tile& tile, int64_t row, int64_t column) const {
    const int64_t batch = sizes_.batch == 1 ? 0 : tile.batch, head = sizes_.heads == 1 ? 0 : tile.head;
    const int64_t index = ((batch * sizes_.heads + head) * rows_.count() + row) * columns_.count() + column;
    const std::atomic_ref<uint8_t> known(data_[index]);
    const uint8_t stored = known.load(std::memory_order_relaxed);
    if (stored != 0) return static_cast<TileState>(stored - 1);
    const auto state = mask_->state({tile.batch, tile.head, row * kCellQueries, rows_.elements(row),
                                     column * kCellKeys, columns_.elements(column)});
    known.store(static_cast<uint8_t>(static_cast<int>(state) + 1), std::memory_order_relaxed);
    return state;
  }

  std::unique_ptr<MaskTiles> mask_;
  at::Tensor states_;
  uint8_t* data_;
  MaskSizes sizes_;
  Cells<kCellQueries> rows_;
  Cells<kCellKeys> columns_;
};

}  // namespace

MaskStates::MaskStates(std::vector<at::Tensor> known) : all_(std::move(known)), is_known_(!all_.empty()) {}

at::Tensor MaskStates::next(const MaskSizes& sizes) {
  if (!is_known_) {
    all_.push_back(at::zeros(
        {sizes.batch, sizes.heads, divide_up(sizes.queries, kCellQueries), divide_up(sizes.keys, kCellKeys)},
        at::kByte));
  }
  return all_[next_++];
}

std::unique_ptr<MaskTiles> with_cell_states(std::unique_ptr<MaskTiles> mask, const MaskSizes& sizes,
                                            MaskStates& states) {
  return std::make_unique<CellStateTiles>(std::move(mask), sizes, states.next(sizes));
}

}  // namespace attend::cpu
