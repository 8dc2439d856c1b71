#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/ones_like.h>
#include <attend/mask.h>

#include <utility>

#include "mask_node.h"

namespace attend {
namespace {

at::Tensor key_row(const ScoreShape& shape, at::Device device) {
  return at::arange(shape.keys, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, 1, -1});
}

at::Tensor query_column(const ScoreShape& shape, at::Device device) {
  return at::arange(shape.queries, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, -1, 1});
}

class Causal final : public MaskNode {
 public:
  explicit Causal(Corner corner) : corner_(corner) {}

  void check(const char*, const ScoreShape&, int64_t, at::Device) const override {}

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    const int64_t offset = corner_ == Corner::bottom_right ? shape.keys - shape.queries : 0;
    return key_row(shape, device) <= query_column(shape, device) + offset;
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

 private:
  int64_t left_, right_;
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

  at::Tensor key_lengths() const override { return lengths_; }

 private:
  at::Tensor lengths_;
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

 private:
  at::Tensor allowed_;
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

  at::Tensor key_lengths() const override {
    const auto left = left_->key_lengths();
    const auto right = right_->key_lengths();
    if (left.defined() && right.defined()) return at::minimum(left, right.to(left.device()));
    return left.defined() ? left : right;
  }

 private:
  std::shared_ptr<const MaskNode> left_, right_;
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
