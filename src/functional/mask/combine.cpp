#include <ATen/TensorOperators.h>
#include <ATen/ops/minimum.h>
#include <attend/mask.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/mask_node.h"

namespace attend {
namespace {

using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

class BothTiles final : public MaskTiles {
 public:
  BothTiles(std::unique_ptr<MaskTiles> left, std::unique_ptr<MaskTiles> right)
      : left_(std::move(left)), right_(std::move(right)) {}

  int64_t key_end(int64_t batch) const override {
    return std::min(left_->key_end(batch), right_->key_end(batch));
  }

  TileState state(const Tile& tile) const override {
    const auto left = left_->state(tile);
    if (left == TileState::empty) return left;
    const auto right = right_->state(tile);
    return left == TileState::full || right == TileState::empty ? right : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    std::vector<uint8_t> right(static_cast<size_t>(tile.keys * tile.queries));
    left_->fill(tile, allowed, stride);
    right_->fill(tile, right.data(), tile.queries);
    for (int64_t j = 0; j < tile.keys; ++j) {
      const uint8_t* from = right.data() + j * tile.queries;
      for (int64_t i = 0; i < tile.queries; ++i) allowed[j * stride + i] &= from[i];
    }
  }

 private:
  std::unique_ptr<MaskTiles> left_, right_;
};

class Both final : public MaskNode {
 public:
  Both(std::shared_ptr<const MaskNode> left, std::shared_ptr<const MaskNode> right)
      : left_(std::move(left)), right_(std::move(right)) {}

  void check(const char* function, const ScoreShape& shape, int64_t query_dim,
             at::Device device) const override {
    left_->check(function, shape, query_dim, device);
    right_->check(function, shape, query_dim, device);
  }

  at::Tensor allowed(const ScoreShape& shape, int64_t query_dim, at::Device device) const override {
    return left_->allowed(shape, query_dim, device) & right_->allowed(shape, query_dim, device);
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t query_dim) const override {
    return std::make_unique<BothTiles>(left_->bind(shape, query_dim), right_->bind(shape, query_dim));
  }

  at::Tensor key_lengths() const override {
    const auto left = left_->key_lengths();
    const auto right = right_->key_lengths();
    if (left.defined() && right.defined()) return at::minimum(left, right.to(left.device()));
    return left.defined() ? left : right;
  }

  std::vector<at::Tensor> tensors() const override {
    auto tensors = left_->tensors();
    for (auto& tensor : right_->tensors()) tensors.push_back(std::move(tensor));
    return tensors;
  }

 private:
  std::shared_ptr<const MaskNode> left_, right_;
};

class NotTiles final : public MaskTiles {
 public:
  NotTiles(std::unique_ptr<MaskTiles> inner, int64_t keys) : inner_(std::move(inner)), keys_(keys) {}

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
    for (int64_t j = 0; j < tile.keys; ++j) {
      for (int64_t i = 0; i < tile.queries; ++i) allowed[j * stride + i] ^= 1;
    }
  }

 private:
  std::unique_ptr<MaskTiles> inner_;
  int64_t keys_;
};

class Not final : public MaskNode {
 public:
  explicit Not(std::shared_ptr<const MaskNode> inner) : inner_(std::move(inner)) {}

  void check(const char* function, const ScoreShape& shape, int64_t query_dim,
             at::Device device) const override {
    inner_->check(function, shape, query_dim, device);
  }

  at::Tensor allowed(const ScoreShape& shape, int64_t query_dim, at::Device device) const override {
    return ~inner_->allowed(shape, query_dim, device);
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t query_dim) const override {
    return std::make_unique<NotTiles>(inner_->bind(shape, query_dim), shape.keys);
  }

  std::vector<at::Tensor> tensors() const override { return inner_->tensors(); }

 private:
  std::shared_ptr<const MaskNode> inner_;
};

}  // namespace

Mask operator&(const Mask& left, const Mask& right) {
  if (!left.defined()) return right;
  if (!right.defined()) return left;
  return Mask(std::make_shared<Both>(left.node(), right.node()));
}

Mask operator|(const Mask& left, const Mask& right) {
  if (!left.defined() || !right.defined()) return {};
  return ~(~left & ~right);
}

Mask operator~(const Mask& mask) {
  const auto everything = window(-1, -1);
  return Mask(std::make_shared<Not>(mask.defined() ? mask.node() : everything.node()));
}

}  // namespace attend
