#include <ATen/TensorOperators.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <attend/mask.h>

#include <algorithm>
#include <vector>

#include "core/mask_node.h"
#include "functional/mask/positions.h"

namespace attend {
namespace {

using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

/// The keys before a length per batch element.
class LengthTiles final : public MaskTiles {
 public:
  LengthTiles(const at::Tensor& lengths, int64_t keys, bool reads_past)
      : lengths_(lengths.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>() + lengths.numel()),
        keys_(keys),
        reads_past_(reads_past) {}

  int64_t key_end(int64_t batch) const override { return reads_past_ ? keys_ : length(batch); }

  TileState state(const Tile& tile) const override {
    const int64_t end = length(tile.batch);
    if (tile.key >= end) return TileState::empty;
    return tile.key + tile.keys <= end ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    for (int64_t j = 0; j < tile.keys; ++j) {
      const bool visible = tile.key + j < length(tile.batch);
      std::fill_n(allowed + j * stride, tile.queries, static_cast<uint8_t>(visible));
    }
  }

 private:
  int64_t length(int64_t batch) const { return lengths_[static_cast<size_t>(batch)]; }

  std::vector<int64_t> lengths_;
  int64_t keys_;
  bool reads_past_;
};

/// `key_lengths` and `prefix`: the same keys, but those past a prefix may be visible through another mask.
class Lengths final : public MaskNode {
 public:
  /// A copy: lengths that change after they were checked would let the kernels read past the keys.
  Lengths(const char* name, const at::Tensor& lengths, bool reads_past)
      : name_(name),
        lengths_(lengths.to(at::kLong, /*non_blocking=*/false, /*copy=*/true)),
        reads_past_(reads_past) {}

  void check(const char* function, const ScoreShape& shape, int64_t, at::Device device) const override {
    checks::has_data(function, name_, lengths_, device);
    if (lengths_.size(0) != shape.batch) {
      checks::fail(function, name_, c10::str("one length per batch element, [", shape.batch, "]"),
                   checks::describe(lengths_));
    }
    if (at::isTensorSubclassLike(lengths_)) return;  // its numbers can't be looked at
    const auto on_cpu = lengths_.cpu();
    const auto lengths = on_cpu.accessor<int64_t, 1>();
    for (int64_t b = 0; b < shape.batch; ++b) {
      if (lengths[b] < 0 || lengths[b] > shape.keys) {
        checks::fail(function, name_, c10::str("lengths in 0 ... ", shape.keys),
                     c10::str(lengths[b], " for batch element ", b));
      }
    }
  }

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    return key_row(shape, device) < lengths_.to(device).view({-1, 1, 1, 1});
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t) const override {
    return std::make_unique<LengthTiles>(lengths_.cpu().contiguous(), shape.keys, reads_past_);
  }

  at::Tensor key_lengths() const override { return reads_past_ ? at::Tensor() : lengths_; }

 private:
  const char* name_;
  at::Tensor lengths_;
  bool reads_past_;
};

void check_lengths(const char* function, const at::Tensor& lengths) {
  checks::is_strided(function, "lengths", lengths);
  const bool integral = lengths.scalar_type() == at::kLong || lengths.scalar_type() == at::kInt;
  if (!integral || lengths.dim() != 1) {
    checks::fail(function, "lengths", "int64 or int32 [B]", checks::describe(lengths));
  }
}

}  // namespace

Mask key_lengths(const at::Tensor& lengths) {
  check_lengths("key_lengths", lengths);
  return Mask(std::make_shared<Lengths>("key_lengths", lengths, /*reads_past=*/false));
}

Mask prefix(const at::Tensor& lengths) {
  check_lengths("prefix", lengths);
  return Mask(std::make_shared<Lengths>("prefix", lengths, /*reads_past=*/true));
}

}  // namespace attend
