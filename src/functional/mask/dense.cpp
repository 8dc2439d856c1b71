#include <ATen/TensorOperators.h>
#include <attend/mask.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/inputs.h"
#include "core/mask_node.h"

namespace attend {
namespace {

using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

class DenseTiles final : public MaskTiles {
 public:
  /// `allowed`: boolean, expanded to [B, H, Lq, Lk].
  explicit DenseTiles(at::Tensor allowed)
      : allowed_(std::move(allowed)), strides_(allowed_.strides().vec()), keys_(allowed_.size(3)) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    bool any = false, all = true;
    for (int64_t i = 0; i < tile.queries && (all || !any); ++i) {
      const int64_t visible = visible_keys(first(tile) + i * strides_[2], tile.keys);
      any |= visible > 0;
      all &= visible == tile.keys;
    }
    return !any ? TileState::empty : all ? TileState::full : TileState::partial;
  }

  /// In squares: neighbours in `allowed` are far apart in the mask.
  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    constexpr int64_t kSquare = 16;
    const bool* from = first(tile);
    for (int64_t key = 0; key < tile.keys; key += kSquare) {
      const int64_t key_end = std::min(key + kSquare, tile.keys);
      for (int64_t i = 0; i < tile.queries; ++i) {
        for (int64_t j = key; j < key_end; ++j) {
          allowed[j * stride + i] = from[i * strides_[2] + j * strides_[3]] ? 1 : 0;
        }
      }
    }
  }

 private:
  int64_t visible_keys(const bool* row, int64_t keys) const {
    if (strides_[3] == 1) return std::count(row, row + keys, true);
    int64_t visible = 0;
    for (int64_t j = 0; j < keys; ++j) visible += row[j * strides_[3]] ? 1 : 0;
    return visible;
  }

  const bool* first(const Tile& tile) const {
    return allowed_.const_data_ptr<bool>() + tile.batch * strides_[0] + tile.head * strides_[1] +
           tile.query * strides_[2] + tile.key * strides_[3];
  }

  at::Tensor allowed_;
  std::vector<int64_t> strides_;
  int64_t keys_;
};

class Dense final : public MaskNode {
 public:
  explicit Dense(at::Tensor allowed) : allowed_(std::move(allowed)) {}

  void check(const char* function, const ScoreShape& shape, int64_t query_dim,
             at::Device device) const override {
    checks::on_device(function, "mask", allowed_, device);
    checks::broadcastable(function, "mask", allowed_, shape, query_dim);
  }

  at::Tensor allowed(const ScoreShape& shape, int64_t query_dim, at::Device) const override {
    return checks::rows_of(checks::broadcastable("dense", "mask", allowed_, shape, query_dim), shape);
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t query_dim) const override {
    return std::make_unique<DenseTiles>(materialized(allowed(shape, query_dim, at::kCPU))
                                            .expand({shape.batch, shape.heads, shape.queries, shape.keys}));
  }

  std::vector<at::Tensor> tensors() const override { return {allowed_}; }

 private:
  at::Tensor allowed_;
};

}  // namespace

Mask::Mask(const at::Tensor& allowed) {
  if (allowed.defined()) *this = dense(allowed);
}

Mask dense(const at::Tensor& allowed) {
  checks::is_strided("dense", "allowed", allowed);
  if (allowed.scalar_type() != at::kBool) {
    checks::fail("dense", "allowed", "dtype bool, true = may attend (attend::bias adds to the scores)",
                 checks::describe(allowed));
  }
  return Mask(std::make_shared<Dense>(allowed));
}

}  // namespace attend
