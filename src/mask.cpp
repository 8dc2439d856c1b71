#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/ones_like.h>
#include <attend/mask.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "mask_node.h"

namespace attend {
namespace {

at::Tensor key_row(const ScoreShape& shape, at::Device device) {
  return at::arange(shape.keys, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, 1, -1});
}

at::Tensor query_column(const ScoreShape& shape, at::Device device) {
  return at::arange(shape.queries, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, -1, 1});
}

using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

/// Query i may attend to the keys i + low <= j <= i + high.
class BandTiles final : public MaskTiles {
 public:
  BandTiles(int64_t low, int64_t high, int64_t keys) : low_(low), high_(high), keys_(keys) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    const int64_t first_query = tile.query, last_query = tile.query + tile.queries - 1;
    const int64_t first_key = tile.key, last_key = tile.key + tile.keys - 1;
    if (first_key > last_query + high_ || last_key < first_query + low_) return TileState::empty;
    const bool full = first_key >= last_query + low_ && last_key <= first_query + high_;
    return full ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    for (int64_t j = 0; j < tile.keys; ++j) {
      // Which queries see key j: those from j - high on, up to j - low.
      const int64_t key = tile.key + j - tile.query;
      const int64_t begin = std::clamp(key - high_, int64_t{0}, tile.queries);
      const int64_t end = std::clamp(key - low_ + 1, begin, tile.queries);
      uint8_t* row = allowed + j * stride;
      std::fill(row, row + begin, uint8_t{0});
      std::fill(row + begin, row + end, uint8_t{1});
      std::fill(row + end, row + tile.queries, uint8_t{0});
    }
  }

 private:
  int64_t low_, high_, keys_;
};

/// Farther than any two positions are apart.
constexpr int64_t kUnbounded = int64_t{1} << 60;

class Causal final : public MaskNode {
 public:
  explicit Causal(Corner corner) : corner_(corner) {}

  void check(const char*, const ScoreShape&, int64_t, at::Device) const override {}

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    const int64_t offset = corner_ == Corner::bottom_right ? shape.keys - shape.queries : 0;
    return key_row(shape, device) <= query_column(shape, device) + offset;
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t) const override {
    const int64_t offset = corner_ == Corner::bottom_right ? shape.keys - shape.queries : 0;
    return std::make_unique<BandTiles>(-kUnbounded, offset, shape.keys);
  }

 private:
  Corner corner_;
};

class Window final : public MaskNode {
 public:
  Window(int64_t left, int64_t right) : left_(left), right_(right) {}

  void check(const char*, const ScoreShape&, int64_t, at::Device) const override {}

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    const auto distance = key_row(shape, device) - query_column(shape, device) - (shape.keys - shape.queries);
    auto allowed = at::ones_like(distance, distance.options().dtype(at::kBool));
    if (left_ >= 0) allowed = allowed & (distance >= -left_);
    if (right_ >= 0) allowed = allowed & (distance <= right_);
    return allowed;
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t) const override {
    const int64_t offset = shape.keys - shape.queries;
    const int64_t low = left_ < 0 ? -kUnbounded : offset - std::min(left_, kUnbounded);
    const int64_t high = right_ < 0 ? kUnbounded : offset + std::min(right_, kUnbounded);
    return std::make_unique<BandTiles>(low, high, shape.keys);
  }

 private:
  int64_t left_, right_;
};

class KeyLengthTiles final : public MaskTiles {
 public:
  explicit KeyLengthTiles(const at::Tensor& lengths)
      : lengths_(lengths.const_data_ptr<int64_t>(), lengths.const_data_ptr<int64_t>() + lengths.numel()) {}

  int64_t key_end(int64_t batch) const override { return lengths_[static_cast<size_t>(batch)]; }

  TileState state(const Tile& tile) const override {
    const int64_t end = key_end(tile.batch);
    if (tile.key >= end) return TileState::empty;
    return tile.key + tile.keys <= end ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    for (int64_t j = 0; j < tile.keys; ++j) {
      const bool visible = tile.key + j < key_end(tile.batch);
      std::fill_n(allowed + j * stride, tile.queries, static_cast<uint8_t>(visible));
    }
  }

 private:
  std::vector<int64_t> lengths_;
};

class KeyLengths final : public MaskNode {
 public:
  explicit KeyLengths(const at::Tensor& lengths) : lengths_(lengths.to(at::kLong)) {}

  void check(const char* function, const ScoreShape& shape, int64_t, at::Device) const override {
    if (lengths_.size(0) != shape.batch) {
      checks::fail(function, "key_lengths", c10::str("one length per batch element, [", shape.batch, "]"),
                   checks::describe(lengths_));
    }
    const auto on_cpu = lengths_.cpu();
    const auto lengths = on_cpu.accessor<int64_t, 1>();
    for (int64_t b = 0; b < shape.batch; ++b) {
      if (lengths[b] < 0 || lengths[b] > shape.keys) {
        checks::fail(function, "key_lengths", c10::str("lengths in 0 ... ", shape.keys),
                     c10::str(lengths[b], " for batch element ", b));
      }
    }
  }

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    return key_row(shape, device) < lengths_.to(device).view({-1, 1, 1, 1});
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape&, int64_t) const override {
    return std::make_unique<KeyLengthTiles>(lengths_.cpu().contiguous());
  }

  at::Tensor key_lengths() const override { return lengths_; }

 private:
  at::Tensor lengths_;
};

class DenseTiles final : public MaskTiles {
 public:
  /// `allowed`: boolean, expanded to [B, H, Lq, Lk].
  explicit DenseTiles(at::Tensor allowed)
      : allowed_(std::move(allowed)), strides_(allowed_.strides().vec()), keys_(allowed_.size(3)) {}

  int64_t key_end(int64_t) const override { return keys_; }

  TileState state(const Tile& tile) const override {
    bool any = false, all = true;
    for (int64_t i = 0; i < tile.queries && (all || !any); ++i) {
      const bool* row = first(tile) + i * strides_[2];
      int64_t visible = 0;
      for (int64_t j = 0; j < tile.keys; ++j) visible += row[j * strides_[3]] ? 1 : 0;
      any |= visible > 0;
      all &= visible == tile.keys;
    }
    return !any ? TileState::empty : all ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    for (int64_t j = 0; j < tile.keys; ++j) {
      const bool* column = first(tile) + j * strides_[3];
      for (int64_t i = 0; i < tile.queries; ++i) allowed[j * stride + i] = column[i * strides_[2]] ? 1 : 0;
    }
  }

 private:
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
    return checks::broadcastable("dense", "mask", allowed_, shape, query_dim);
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t query_dim) const override {
    return std::make_unique<DenseTiles>(
        allowed(shape, query_dim, at::kCPU).expand({shape.batch, shape.heads, shape.queries, shape.keys}));
  }

 private:
  at::Tensor allowed_;
};

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

 private:
  std::shared_ptr<const MaskNode> inner_;
};

}  // namespace

Mask::Mask(const at::Tensor& allowed) {
  if (allowed.defined()) *this = dense(allowed);
}

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

Mask causal(Corner corner) { return Mask(std::make_shared<Causal>(corner)); }

Mask window(int64_t left, int64_t right) {
  if (left < -1) checks::fail("window", "left", "-1 (unbounded) or more", c10::str(left));
  if (right < -1) checks::fail("window", "right", "-1 (unbounded) or more", c10::str(right));
  return Mask(std::make_shared<Window>(left, right));
}

Mask key_lengths(const at::Tensor& lengths) {
  checks::is_strided("key_lengths", "lengths", lengths);
  const bool integral = lengths.scalar_type() == at::kLong || lengths.scalar_type() == at::kInt;
  if (!integral || lengths.dim() != 1) {
    checks::fail("key_lengths", "lengths", "int64 or int32 [B]", checks::describe(lengths));
  }
  return Mask(std::make_shared<KeyLengths>(lengths));
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
