// The cache against loops that keep each sequence's tokens in a list and attend to them alone.
#include <attend/attention.h>
#include <attend/kv_cache.h>

#include "naive_attention.h"
#include "support.h"

namespace attend::testing {
namespace {

constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 3, kValueDim = 5;

class KVCacheTest : public ::testing::Test {
 protected:
  /// Memory that was never written holds NaN.
  void SetUp() override {
    torch::manual_seed(0);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  }
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false); }
};

KVCacheOptions options_of(int64_t batch, int64_t capacity, int64_t window = 0) {
  return {.batch = batch,
          .num_kv_heads = kKvHeads,
          .head_dim = kDim,
          .value_dim = kValueDim,
          .capacity = capacity,
          .window = window,
          .tensors = torch::kDouble};
}

/// The tokens of one sequence, [Hkv, L, D].
struct Sequence {
  torch::Tensor key = torch::zeros({kKvHeads, 0, kDim}, torch::kDouble);
  torch::Tensor value = torch::zeros({kKvHeads, 0, kValueDim}, torch::kDouble);

  void append(const torch::Tensor& new_key, const torch::Tensor& new_value) {
    key = torch::cat({key, new_key}, 1);
    value = torch::cat({value, new_value}, 1);
  }
  void truncate(int64_t length) {
    key = key.slice(1, 0, length);
    value = value.slice(1, 0, length);
  }
  /// Attention of its last tokens to all that they see; query: [H, L, D].
  torch::Tensor attend_to(const torch::Tensor& query, int64_t window) const {
    NaiveAttention naive{.scale = 1 / std::sqrt(static_cast<double>(kDim))};
    const int64_t offset = key.size(1) - query.size(1);
    naive.allowed = [=](int64_t, int64_t, int64_t i, int64_t j) {
      return j <= i + offset && (window == 0 || i + offset - j < window);
    };
    return naive(query.unsqueeze(0), key.contiguous().unsqueeze(0), value.contiguous().unsqueeze(0))
        .output[0];
  }
};

/// A cache and the lists that it should agree with.
struct Sides {
  KVCache cache;
  std::vector<Sequence> sequences;

  explicit Sides(const KVCacheOptions& options)
      : cache(options), sequences(static_cast<size_t>(options.batch)) {}

  /// Appends random tokens, the last counts[b] of each sequence, and compares what their queries get.
  void step(int64_t tokens, const std::vector<int64_t>& counts = {}) {
    const auto batch = static_cast<int64_t>(sequences.size());
    const auto key = torch::randn({batch, kKvHeads, tokens, kDim}, torch::kDouble);
    const auto value = torch::randn({batch, kKvHeads, tokens, kValueDim}, torch::kDouble);
    const auto query = torch::randn({batch, kHeads, tokens, kDim}, torch::kDouble);
    const auto counts_tensor = counts.empty() ? torch::Tensor() : torch::tensor(counts, torch::kLong);
    const auto positions = cache.positions(tokens, counts_tensor).expand({batch, tokens});
    const auto entries = cache.append(key, value, counts_tensor);
    const auto output = attention(query, entries.key, entries.value, {.mask = entries.mask});
    for (int64_t b = 0; b < batch; ++b) {
      auto& sequence = sequences[static_cast<size_t>(b)];
      const int64_t own = counts.empty() ? tokens : counts[static_cast<size_t>(b)], first = tokens - own;
      const int64_t length = sequence.key.size(1);
      EXPECT_TRUE(torch::equal(positions[b].slice(0, first), torch::arange(length, length + own)));
      sequence.append(key[b].slice(1, first), value[b].slice(1, first));
      expect_close(output[b].slice(1, first),
                   sequence.attend_to(query[b].slice(1, first).contiguous(), cache.options().window), 1e-12,
                   "sequence " + std::to_string(b));
      EXPECT_EQ(cache.lengths()[b].item<int64_t>(), sequence.key.size(1));
    }
    EXPECT_FALSE(output.isnan().any().item<bool>());
  }

  void truncate(const std::vector<int64_t>& lengths) {
    cache.truncate(torch::tensor(lengths, torch::kLong));
    for (size_t b = 0; b < sequences.size(); ++b) sequences[b].truncate(lengths[b]);
  }
};

TEST_F(KVCacheTest, StepsAttendToAllThatCameBefore) {
  Sides sides(options_of(2, 20));
  for (const int64_t tokens : {3, 1, 1, 5, 0, 1, 9}) sides.step(tokens);
}

TEST_F(KVCacheTest, AppendsInPlace) {
  KVCache cache(options_of(1, 8));
  const auto append = [&] {
    return cache.append(torch::ones({1, kKvHeads, 1, kDim}, torch::kDouble),
                        torch::ones({1, kKvHeads, 1, kValueDim}, torch::kDouble));
  };
  const auto first = append(), second = append();
  EXPECT_EQ(first.key.data_ptr(), second.key.data_ptr());
  EXPECT_EQ(first.value.data_ptr(), second.value.data_ptr());
  EXPECT_FALSE(second.mask.defined());  // nothing to hide from a single new token
}

TEST_F(KVCacheTest, SequencesMayDifferInLength) {
  Sides sides(options_of(3, 30));
  sides.step(5, {5, 2, 0});  // prompts
  sides.step(1);
  sides.step(2, {0, 2, 1});  // some go on, and one catches up
  sides.step(4, {1, 4, 4});
  sides.step(1);
  sides.step(8, {0, 0, 8});  // the shortest becomes the longest
  sides.step(1);
}

TEST_F(KVCacheTest, TakesBackToALength) {
  Sides sides(options_of(3, 12));
  sides.step(6);
  sides.truncate({4, 4, 4});
  sides.step(3);
  sides.truncate({2, 7, 0});
  sides.step(2);
  sides.truncate({4, 3, 2});
  sides.step(8);
  sides.cache.truncate(1);
  for (auto& sequence : sides.sequences) sequence.truncate(1);
  sides.step(1);
}

TEST_F(KVCacheTest, StartsAgainAfterAReset) {
  Sides sides(options_of(2, 4));
  sides.step(4, {4, 2});
  sides.cache.reset();
  sides.sequences.assign(2, {});
  sides.step(3);
  sides.step(1);
}

TEST_F(KVCacheTest, WhatWasForgottenIsNotRead) {
  for (const bool resets : {true, false}) {
    KVCache cache(options_of(2, 8));
    const auto tokens = [](int64_t count, double value) {
      return torch::full({2, kKvHeads, count, kDim}, value, torch::kDouble);
    };
    const auto values = [](int64_t count, double value) {
      return torch::full({2, kKvHeads, count, kValueDim}, value, torch::kDouble);
    };
    cache.append(tokens(4, NAN), values(4, NAN));
    if (resets) cache.reset();
    if (!resets) cache.truncate(0);
    const auto entries = cache.append(tokens(4, 1), values(4, 1), torch::tensor({4, 2}));
    const auto query = torch::ones({2, kHeads, 4, kDim}, torch::kDouble);
    const auto output = attention(query, entries.key, entries.value, {.mask = entries.mask});
    EXPECT_FALSE(output.isnan().any().item<bool>());
  }
}

TEST_F(KVCacheTest, TellsHowManyKeysAnAppendGives) {
  for (const int64_t window : {0, 3}) {
    KVCache cache(options_of(2, window == 0 ? 40 : 4, window));
    for (const int64_t tokens : {1, 2, 1, 7, 1, 1, 3}) {
      const auto counts = torch::tensor({tokens, tokens - 1});
      const int64_t keys = cache.keys(tokens, counts);
      EXPECT_EQ(cache
                    .append(torch::randn({2, kKvHeads, tokens, kDim}, torch::kDouble),
                            torch::randn({2, kKvHeads, tokens, kValueDim}, torch::kDouble), counts)
                    .key.size(2),
                keys);
      EXPECT_EQ(cache.entries().key.size(2), cache.keys(0));
    }
  }
}

TEST_F(KVCacheTest, AWindowForgetsWhatIsPast) {
  for (const int64_t capacity : {4, 7}) {
    Sides sides(options_of(2, capacity, /*window=*/4));
    for (int n = 0; n < 30; ++n) sides.step(1);
    for (const int64_t tokens : {2, 5, 3, 20, 1, 8, 1}) sides.step(tokens);  // 20 and 8 never fit
    EXPECT_EQ(sides.cache.lengths()[0].item<int64_t>(), 70);
    sides.step(1);
  }
}

TEST_F(KVCacheTest, AWindowServesSequencesOfDifferentLengths) {
  Sides sides(options_of(3, 6, /*window=*/4));
  sides.step(9, {9, 2, 0});
  for (int n = 0; n < 20; ++n) {
    sides.step(2, {n % 3, 2, 1});
    sides.step(1);
  }
  sides.step(30, {30, 3, 13});
  sides.step(1);
}

TEST_F(KVCacheTest, AWindowTakesBackWhatItsCapacityKeeps) {
  Sides sides(options_of(2, /*capacity=*/10, /*window=*/4));
  for (int n = 0; n < 60; ++n) {
    sides.step(3);
    const auto lengths = sides.cache.lengths();
    sides.truncate({lengths[0].item<int64_t>() - n % 3, lengths[1].item<int64_t>() - (n + 1) % 3});
    sides.step(2, {n % 3, 1});
  }
}

TEST_F(KVCacheTest, SelectsSequences) {
  Sides sides(options_of(3, 20));
  sides.step(5, {5, 2, 3});
  const auto select = [&](const std::vector<int64_t>& chosen) {
    sides.cache.select(torch::tensor(chosen, torch::kLong));
    std::vector<Sequence> selected;
    for (const auto b : chosen) selected.push_back(sides.sequences[static_cast<size_t>(b)]);
    sides.sequences = selected;
  };
  select({1, 1, 0});
  sides.step(2);
  select({1, 0});  // the longest goes
  sides.step(1);
  select({0, 0, 1, 1, 0});
  sides.step(3, {1, 2, 3, 0, 1});
}

TEST_F(KVCacheTest, EntriesAreSeenByOtherQueries) {
  KVCache cache(options_of(2, 20));
  const auto key = torch::randn({2, kKvHeads, 6, kDim}, torch::kDouble),
             value = torch::randn({2, kKvHeads, 6, kValueDim}, torch::kDouble);
  cache.append(key, value, torch::tensor({6, 4}));
  const auto query = torch::randn({2, kHeads, 3, kDim}, torch::kDouble);
  const auto entries = cache.entries();
  const auto output = attention(query, entries.key, entries.value, {.mask = entries.mask});
  expect_close(output[0], attention(query.slice(0, 0, 1), key.slice(0, 0, 1), value.slice(0, 0, 1))[0],
               1e-14);
  expect_close(output[1],
               attention(query.slice(0, 1), key.slice(0, 1).slice(2, 2), value.slice(0, 1).slice(2, 2))[0],
               1e-14);
}

TEST_F(KVCacheTest, IsNoPartOfAGraph) {
  KVCache cache(options_of(1, 4));
  const auto key = torch::ones({1, kKvHeads, 1, kDim}, torch::kDouble).requires_grad_();
  const auto value = torch::ones({1, kKvHeads, 1, kValueDim}, torch::kDouble);
  EXPECT_EQ(error_of([&] { cache.append(key, value); }),
            "attend::KVCache: key: expected no gradients to be recorded (torch::NoGradGuard), as none flow "
            "through a cache, got one that requires them");
  const auto scaled = value.clone().requires_grad_() * 2;
  EXPECT_EQ(error_of([&] { cache.append(key.detach(), scaled); }),
            "attend::KVCache: value: expected no gradients to be recorded (torch::NoGradGuard), as none flow "
            "through a cache, got one that requires them");
  EXPECT_EQ(cache.lengths().item<int64_t>(), 0);
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(cache.append(key, scaled).key.requires_grad());
}

TEST_F(KVCacheTest, ErrorsNameTheArgument) {
  const auto key = torch::ones({2, kKvHeads, 3, kDim}, torch::kDouble),
             value = torch::ones({2, kKvHeads, 3, kValueDim}, torch::kDouble);
  KVCache cache(options_of(2, 5));
  cache.append(key, value, torch::tensor({1, 3}));
  EXPECT_EQ(error_of([&] { cache.append(key, value); }),
            "attend::KVCache: key: expected at most 2 more tokens, of a capacity of 5 (3 are used), got 3");
  EXPECT_EQ(error_of([&] { cache.append(key[0], value); }),
            "attend::KVCache: key: expected float64 [2, 2, L, 3] on cpu, got float64 [2, 3, 3]");
  EXPECT_EQ(error_of([&] { cache.append(key.to(torch::kFloat), value); }),
            "attend::KVCache: key: expected float64 [2, 2, L, 3] on cpu, got float32 [2, 2, 3, 3]");
  EXPECT_EQ(error_of([&] { cache.append(key, value.slice(2, 1)); }),
            "attend::KVCache: value: expected float64 [2, 2, 3, 5] on cpu, got float64 [2, 2, 2, 5]");
  EXPECT_EQ(error_of([&] { cache.append(key, value, torch::tensor({4, 0})); }),
            "attend::KVCache: counts: expected 0 ... 3, the number of tokens, got 4 for sequence 0");
  EXPECT_EQ(error_of([&] { cache.append(key, value, torch::tensor({1})); }),
            "attend::KVCache: counts: expected int64 [2], got int64 [1]");
  EXPECT_EQ(error_of([&] { cache.truncate(2); }),
            "attend::KVCache: lengths: expected 0 ... 1, the length of the sequence, got 2 for sequence 0");
  EXPECT_EQ(error_of([&] { cache.truncate(-1); }),
            "attend::KVCache: lengths: expected 0 ... 1, the length of the sequence, got -1 for sequence 0");
  EXPECT_EQ(error_of([&] { cache.select(torch::tensor({0, 2})); }),
            "attend::KVCache: sequences: expected numbers in 0 ... 1, got 2");
  EXPECT_EQ(cache.lengths()[1].item<int64_t>(), 3);  // nothing of that changed it
  KVCache window(options_of(1, 4, 4));
  for (int n = 0; n < 4; ++n) window.append(key.slice(0, 1), value.slice(0, 1));
  EXPECT_EQ(
      error_of([&] { window.truncate(2); }),
      "attend::KVCache: lengths: expected at least 9, whose window is still kept, got 2 for sequence 0");
  EXPECT_EQ(error_of([] { KVCache(options_of(1, 3, 4)); }),
            "attend::KVCache: capacity: expected at least 4, got 3");
  EXPECT_EQ(error_of([] { KVCache(options_of(1, 0)); }),
            "attend::KVCache: capacity: expected at least 1, got 0");
  EXPECT_EQ(
      error_of([] { KVCache({.tensors = torch::kLong}); }),
      "attend::KVCache: tensors: expected dtype float64, float32, bfloat16 or float16, got int64 [1, 1, "
      "2048, 64]");
}

}  // namespace
}  // namespace attend::testing
