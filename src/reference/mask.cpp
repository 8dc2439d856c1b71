#include "reference/mask.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>

#include <algorithm>

#include "core/mask_node.h"
#include "reference/columns.h"

namespace attend::reference {
namespace {

/// Returns the key positions j as [1, 1, 1, Lk].
at::Tensor key_row(const SymScoreShape& shape, at::Device device) {
  return at::arange(shape.keys, at::TensorOptions().dtype(at::kLong).device(device)).view({1, 1, 1, -1});
}

/// Returns the query positions i as [1, 1, rows, 1].
at::Tensor query_column(const SymScoreShape& shape, at::Device device) {
  const auto options = at::TensorOptions().dtype(at::kLong).device(device);
  return at::arange(shape.first_row, shape.first_row + shape.rows, options).view({1, 1, -1, 1});
}

at::Tensor before(const at::Tensor& lengths, const SymScoreShape& shape, at::Device device) {
  return key_row(shape, device) < lengths.to(device).view({-1, 1, 1, 1});
}

/// Evaluates a mask; one overload for each kind.
struct Allowed {
  const SymScoreShape& shape;
  int64_t query_dim;
  at::Device device;

  at::Tensor operator()(const Mask& mask) const { return std::visit(*this, mask.node()->kind); }

  at::Tensor operator()(const MaskNode::Causal& mask) const {
    const auto offset = mask.corner == Corner::bottom_right ? shape.keys - shape.queries : 0;
    return key_row(shape, device) <= query_column(shape, device) + offset;
  }

  at::Tensor operator()(const MaskNode::Window& mask) const {
    const auto distance = key_row(shape, device) - query_column(shape, device) - (shape.keys - shape.queries);
    auto allowed = at::ones_like(distance, distance.options().dtype(at::kBool));
    if (mask.left >= 0) allowed = allowed & (distance >= -mask.left);
    if (mask.right >= 0) allowed = allowed & (distance <= mask.right);
    return allowed;
  }

  at::Tensor operator()(const MaskNode::KeyLengths& mask) const {
    return before(mask.lengths, shape, device);
  }

  at::Tensor operator()(const MaskNode::Prefix& mask) const { return before(mask.lengths, shape, device); }

  at::Tensor operator()(const MaskNode::Documents& mask) const {
    const auto& [batch, heads, queries, keys, first_row, rows] = shape;
    const auto key_ids = mask.ids.to(device).contiguous().expand_symint({batch, keys});
    const auto position = query_column(shape, device).view({-1}) + (keys - queries);
    const auto exists = (position >= 0).view({1, 1, -1, 1});
    if (keys == 0) return exists.expand_symint({batch, 1, rows, 0});
    const auto query_ids = key_ids.index_select(1, position.clamp(0, keys - 1));
    return exists & (query_ids.view_symint({batch, 1, rows, 1}) == key_ids.view_symint({batch, 1, 1, keys}));
  }

  at::Tensor operator()(const MaskNode::Dense& mask) const {
    return checks::rows_of(checks::with_score_dims(mask.allowed, query_dim), shape);
  }

  at::Tensor operator()(const MaskNode::Lambda& mask) const {
    const auto sizes = integers_of(shape);
    const auto columns = at::empty({sizes.batch, sizes.heads, sizes.keys, sizes.rows}, at::kBool);
    auto* data = reinterpret_cast<uint8_t*>(columns.mutable_data_ptr<bool>());
    for_each_column(sizes, [&](const detail::PositionTile& column, int64_t offset) {
      mask.function->fill(column, data + offset, sizes.rows);
    });
    return columns.transpose(-2, -1).to(device);
  }

  at::Tensor operator()(const MaskNode::Both& mask) const { return (*this)(mask.left) & (*this)(mask.right); }

  at::Tensor operator()(const MaskNode::Not& mask) const { return ~(*this)(mask.inner); }
};

}  // namespace

at::Tensor allowed(const Mask& mask, const SymScoreShape& shape, int64_t query_dim, at::Device device) {
  return Allowed{shape, query_dim, device}(mask);
}

}  // namespace attend::reference
