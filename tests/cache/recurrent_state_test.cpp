// Tests a recurrent state without a module; tests/nn/linear_attention_test.cpp tests states with mixers.
#include <attend/recurrent_state.h>

#include <type_traits>

#include "support.h"

namespace attend::testing {
namespace {

static_assert(!std::is_copy_constructible_v<RecurrentState>);
static_assert(std::is_nothrow_move_constructible_v<RecurrentState>);

RecurrentState random_state() {
  RecurrentState state;
  state.memory = torch::randn({3, 2, 4, 5});
  state.recent = torch::randn({3, 3, 6});
  state.length = 7;
  return state;
}

TEST(RecurrentStateTest, ACloneHasMemoryOfItsOwn) {
  const auto state = random_state();
  const auto copy = state.clone();
  EXPECT_TRUE(torch::equal(copy.memory, state.memory));
  EXPECT_TRUE(torch::equal(copy.recent, state.recent));
  EXPECT_EQ(copy.length, 7);
  EXPECT_FALSE(copy.memory.is_alias_of(state.memory));
  EXPECT_FALSE(copy.recent.is_alias_of(state.recent));
  EXPECT_FALSE(RecurrentState().clone().memory.defined());
}

TEST(RecurrentStateTest, SelectsSequences) {
  const auto state = random_state();
  auto selected = state.clone();
  selected.select(torch::tensor({2, 2, 0, 1}));
  for (const auto& [b, from] : {std::pair{0, 2}, std::pair{1, 2}, std::pair{2, 0}, std::pair{3, 1}}) {
    EXPECT_TRUE(torch::equal(selected.memory[b], state.memory[from]));
    EXPECT_TRUE(torch::equal(selected.recent[b], state.recent[from]));
  }
  EXPECT_EQ(selected.length, 7);
}

TEST(RecurrentStateTest, ErrorsNameTheArgument) {
  auto state = random_state();
  EXPECT_EQ(error_of([&] { state.select(torch::tensor({0, 3})); }),
            "attend::RecurrentState: sequences: expected indices in 0 ... 2, got 3");
  EXPECT_EQ(error_of([&] { state.select(torch::tensor({0.0f})); }),
            "attend::RecurrentState: sequences: expected int64 [B'], got float32 [1]");
  EXPECT_EQ(state.memory.size(0), 3);
}

}  // namespace
}  // namespace attend::testing
