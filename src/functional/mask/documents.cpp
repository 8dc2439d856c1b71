#include <ATen/TensorOperators.h>
#include <attend/mask.h>

#include <algorithm>
#include <utility>

#include "core/mask_node.h"
#include "functional/mask/positions.h"

namespace attend {
namespace {

using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

class DocumentTiles final : public MaskTiles {
 public:
  /// `documents`: int64, expanded to [B, Lk], on the CPU.
  DocumentTiles(at::Tensor documents, const ScoreShape& shape)
      : documents_(std::move(documents)), keys_(shape.keys), offset_(shape.keys - shape.queries) {}

  int64_t key_end(int64_t) const override { return keys_; }

  /// Documents are usually numbered in their order, so that ranges of numbers tell tiles apart.
  TileState state(const Tile& tile) const override {
    const int64_t first_query = tile.query + offset_;
    if (first_query < 0) return TileState::partial;
    const auto [least_query, most_query] = range(tile.batch, first_query, tile.queries);
    const auto [least_key, most_key] = range(tile.batch, tile.key, tile.keys);
    if (most_query < least_key || most_key < least_query) return TileState::empty;
    const bool one_document = least_query == most_query && least_key == most_key && least_query == least_key;
    return one_document ? TileState::full : TileState::partial;
  }

  void fill(const Tile& tile, uint8_t* allowed, int64_t stride) const override {
    const int64_t* documents = row(tile.batch);
    for (int64_t j = 0; j < tile.keys; ++j) {
      const int64_t document = documents[tile.key + j];
      for (int64_t i = 0; i < tile.queries; ++i) {
        const int64_t position = tile.query + i + offset_;
        allowed[j * stride + i] = position >= 0 && documents[position] == document ? 1 : 0;
      }
    }
  }

 private:
  const int64_t* row(int64_t batch) const {
    return documents_.const_data_ptr<int64_t>() + batch * documents_.stride(0);
  }

  std::pair<int64_t, int64_t> range(int64_t batch, int64_t begin, int64_t count) const {
    const auto [least, most] = std::minmax_element(row(batch) + begin, row(batch) + begin + count);
    return {*least, *most};
  }

  at::Tensor documents_;
  int64_t keys_, offset_;
};

class Documents final : public MaskNode {
 public:
  /// A copy: numbers that change between the forward and the backward pass would make gradients of another
  /// call.
  explicit Documents(const at::Tensor& documents)
      : documents_(documents.to(at::kLong, /*non_blocking=*/false, /*copy=*/true)) {}

  void check(const char* function, const ScoreShape& shape, int64_t, at::Device device) const override {
    checks::has_data(function, "documents", documents_, device);
    const bool per_batch = documents_.dim() == 2;
    if (documents_.size(-1) != shape.keys || (per_batch && documents_.size(0) != shape.batch)) {
      checks::fail(
          function, "documents",
          c10::str("one number per key, [", shape.keys, "] or [", shape.batch, ", ", shape.keys, "]"),
          checks::describe(documents_));
    }
  }

  at::Tensor allowed(const ScoreShape& shape, int64_t, at::Device device) const override {
    const auto of_keys = of_batch(shape, device);
    const auto position = query_column(shape, device).view({-1}) + (shape.keys - shape.queries);
    const auto exists = (position >= 0).view({1, 1, -1, 1});
    const auto last = std::max<int64_t>(shape.keys - 1, 0);
    if (shape.keys == 0) return exists.expand({shape.batch, 1, shape.rows, 0});
    const auto of_queries = of_keys.index_select(1, position.clamp(0, last));
    return exists & (of_queries.view({shape.batch, 1, shape.rows, 1}) ==
                     of_keys.view({shape.batch, 1, 1, shape.keys}));
  }

  std::unique_ptr<MaskTiles> bind(const ScoreShape& shape, int64_t) const override {
    return std::make_unique<DocumentTiles>(of_batch(shape, at::kCPU), shape);
  }

 private:
  at::Tensor of_batch(const ScoreShape& shape, at::Device device) const {
    return documents_.to(device).contiguous().expand({shape.batch, shape.keys});
  }

  at::Tensor documents_;
};

}  // namespace

Mask documents(const at::Tensor& numbers) {
  checks::is_strided("documents", "numbers", numbers);
  const bool integral = numbers.scalar_type() == at::kLong || numbers.scalar_type() == at::kInt;
  if (!integral || numbers.dim() < 1 || numbers.dim() > 2) {
    checks::fail("documents", "numbers", "int64 or int32 [Lk] or [B, Lk]", checks::describe(numbers));
  }
  return Mask(std::make_shared<Documents>(numbers));
}

}  // namespace attend
