// Tests the mask states of cells, which are found once per call.
#include "cpu/mask/cell_states.h"

#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include <random>

namespace attend::testing {
namespace {

using cpu::MaskSizes;
using cpu::MaskStates;
using cpu::MaskTiles;
using cpu::Tile;
using cpu::TileState;

/// A mask of a boolean tensor [B, H, Lq, Lk] that counts how many elements are evaluated.
class CountedTiles final : public MaskTiles {
 public:
  CountedTiles(at::Tensor allowed, int64_t* count) : allowed_(std::move(allowed)), count_(count) {}
  int64_t key_end(int64_t) const override { return allowed_.size(3); }
  TileState state(const Tile& tile) const override {
    *count_ += tile.queries * tile.keys;
    const auto part = allowed_[tile.batch][tile.head]
                          .slice(0, tile.query, tile.query + tile.queries)
                          .slice(1, tile.key, tile.key + tile.keys);
    return part.all().item<bool>()    ? TileState::full
           : !part.any().item<bool>() ? TileState::empty
                                      : TileState::partial;
  }
  void fill(const Tile&, uint8_t*, int64_t) const override {}

 private:
  at::Tensor allowed_;
  int64_t* count_;
};

/// Returns a mask with empty, full and partial cells.
at::Tensor random_mask(const MaskSizes& sizes) {
  auto allowed = at::rand({sizes.batch, sizes.heads, sizes.queries, sizes.keys}) < 0.5;
  for (int64_t query = 0; query < sizes.queries; query += 24) {
    for (int64_t key = 0; key < sizes.keys; key += 96) {
      auto part = allowed.slice(2, query, query + 24).slice(3, key, key + 96);
      const auto kind = (query / 48 + key / 96) % 4;
      if (kind < 2) part.fill_(kind == 0);
    }
  }
  return allowed;
}

TEST(CellStates, AreThoseOfTheMaskForAnyTile) {
  std::mt19937 engine(1);
  const auto below = [&](int64_t n) { return static_cast<int64_t>(engine() % static_cast<uint64_t>(n)); };
  for (const MaskSizes& sizes : {MaskSizes{2, 3, 200, 333}, MaskSizes{1, 1, 96, 96}, MaskSizes{1, 3, 49, 97},
                                 MaskSizes{2, 1, 1, 300}, MaskSizes{1, 1, 130, 1}}) {
    int64_t ignored = 0;
    const auto allowed = random_mask(sizes).expand(
        {2, 3, sizes.queries == 1 ? 130 : sizes.queries, sizes.keys == 1 ? 300 : sizes.keys});
    const CountedTiles plain(allowed, &ignored);
    MaskStates states({});
    const auto tiles = with_cell_states(std::make_unique<CountedTiles>(allowed, &ignored), sizes, states);
    for (int n = 0; n < 400; ++n) {
      Tile tile{below(2), below(3), below(allowed.size(2)), 0, below(allowed.size(3)), 0};
      if (n % 2 == 0) tile.query -= tile.query % 48, tile.key -= tile.key % 96;
      tile.queries = std::min<int64_t>(1 + below(96), allowed.size(2) - tile.query);
      tile.keys = std::min<int64_t>(1 + below(96), allowed.size(3) - tile.key);
      EXPECT_EQ(tiles->state(tile), plain.state(tile))
          << tile.query << "+" << tile.queries << ", " << tile.key << "+" << tile.keys;
    }
  }
}

TEST(CellStates, AreFoundOnceForAllHeadsBatchElementsAndPasses) {
  constexpr int64_t kLength = 480;
  const auto allowed = at::rand({1, 1, kLength, kLength}).ge(0).tril().expand({4, 5, kLength, kLength});
  int64_t count = 0;
  std::vector<at::Tensor> known;
  for (int pass = 0; pass < 2; ++pass) {
    MaskStates states(known);
    const auto tiles =
        with_cell_states(std::make_unique<CountedTiles>(allowed, &count), {1, 1, kLength, kLength}, states);
    for (int64_t batch = 0; batch < 4; ++batch) {
      for (int64_t head = 0; head < 5; ++head) {
        for (int64_t query = 0; query < kLength; query += 96) {
          for (int64_t key = 0; key < kLength; key += 96) tiles->state({batch, head, query, 96, key, 96});
        }
      }
    }
    known = states.all();
    EXPECT_LE(count, kLength * kLength) << "pass " << pass;
  }
  ASSERT_EQ(known.size(), 1U);
}

}  // namespace
}  // namespace attend::testing
