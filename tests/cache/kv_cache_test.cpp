// Compares the cache with a list of tokens for each sequence, to which naive attention is applied.
#include <attend/attention.h>
#include <attend/kv_cache.h>
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <new>
#include <type_traits>

#include "naive_attention.h"
#include "support.h"

namespace attend::testing {
namespace {

constexpr int64_t kHeads = 4, kKvHeads = 2, kDim = 3, kValueDim = 5;

static_assert(!std::is_copy_constructible_v<KVCache> && std::is_nothrow_move_constructible_v<KVCache>);

class KVCacheTest : public ::testing::Test {
 protected:
  /// Fills uninitialised memory with NaN.
  void SetUp() override {
    torch::manual_seed(0);
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/true);
  }
  void TearDown() override { at::globalContext().setDeterministicAlgorithms(false, /*warn_only=*/false); }
};

KVCacheOptions cache_options(int64_t batch, int64_t capacity, int64_t window = 0) {
  return KVCacheOptions(kKvHeads, kDim)
      .value_head_dim(kValueDim)
      .batch(batch)
      .capacity(capacity)
      .window(window)
      .options(torch::kDouble);
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
  /// Computes causal attention of the last L tokens within the window, for a query [H, L, D].
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

/// A cache, and the sequences with which it must agree.
struct Sides {
  KVCache cache;
  std::vector<Sequence> sequences;

  explicit Sides(const KVCacheOptions& options)
      : cache(options), sequences(static_cast<size_t>(options.batch())) {}

  /// Appends random tokens, of sequence b the last lengths[b] tokens, and compares the outputs.
  void step(int64_t tokens, const std::vector<int64_t>& lengths = {}) {
    const auto batch = static_cast<int64_t>(sequences.size());
    const auto key = torch::randn({batch, kKvHeads, tokens, kDim}, torch::kDouble);
    const auto value = torch::randn({batch, kKvHeads, tokens, kValueDim}, torch::kDouble);
    const auto query = torch::randn({batch, kHeads, tokens, kDim}, torch::kDouble);
    const auto new_lengths = lengths.empty() ? torch::Tensor() : torch::tensor(lengths, torch::kLong);
    const auto positions = cache.positions(tokens, new_lengths).expand({batch, tokens});
    const auto entries = cache.append(key, value, new_lengths);
    const auto output = attention(query, entries.key, entries.value, {.mask = entries.mask});
    for (int64_t b = 0; b < batch; ++b) {
      auto& sequence = sequences[static_cast<size_t>(b)];
      const int64_t own = lengths.empty() ? tokens : lengths[static_cast<size_t>(b)], first = tokens - own;
      const int64_t length = sequence.key.size(1);
      EXPECT_TRUE(torch::equal(positions[b].slice(0, first), torch::arange(length, length + own)));
      sequence.append(key[b].slice(1, first), value[b].slice(1, first));
      expect_close(output[b].slice(1, first),
                   sequence.attend_to(query[b].slice(1, first).contiguous(), cache.options().window()), 1e-12,
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

TEST_F(KVCacheTest, StepsAttendToAllEarlierTokens) {
  Sides sides(cache_options(2, 20));
  for (const int64_t tokens : {3, 1, 1, 5, 0, 1, 9}) sides.step(tokens);
}

TEST_F(KVCacheTest, AppendsInPlace) {
  KVCache cache(cache_options(1, 8));
  const auto append = [&] {
    return cache.append(torch::ones({1, kKvHeads, 1, kDim}, torch::kDouble),
                        torch::ones({1, kKvHeads, 1, kValueDim}, torch::kDouble));
  };
  const auto first = append(), second = append();
  EXPECT_EQ(first.key.data_ptr(), second.key.data_ptr());
  EXPECT_EQ(first.value.data_ptr(), second.value.data_ptr());
  EXPECT_FALSE(second.mask.defined());  // a single new token attends to all keys
}

TEST_F(KVCacheTest, SequencesDifferInLength) {
  Sides sides(cache_options(3, 30));
  sides.step(5, {5, 2, 0});  // prompts
  sides.step(1);
  sides.step(2, {0, 2, 1});  // only some of the sequences continue
  sides.step(4, {1, 4, 4});
  sides.step(1);
  sides.step(8, {0, 0, 8});  // the shortest sequence becomes the longest
  sides.step(1);
}

TEST_F(KVCacheTest, TruncatesToALength) {
  Sides sides(cache_options(3, 12));
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

TEST_F(KVCacheTest, ResetRemovesAllTokens) {
  Sides sides(cache_options(2, 4));
  sides.step(4, {4, 2});
  sides.cache.reset();
  sides.sequences.assign(2, {});
  sides.step(3);
  sides.step(1);
}

TEST_F(KVCacheTest, RemovedTokensAreNotRead) {
  for (const bool resets : {true, false}) {
    KVCache cache(cache_options(2, 8));
    const auto keys = [](double fill) { return torch::full({2, kKvHeads, 4, kDim}, fill, torch::kDouble); };
    const auto values = [](double fill) {
      return torch::full({2, kKvHeads, 4, kValueDim}, fill, torch::kDouble);
    };
    cache.append(keys(NAN), values(NAN));
    if (resets) cache.reset();
    if (!resets) cache.truncate(0);
    const auto entries = cache.append(keys(1), values(1), torch::tensor({4, 2}));
    const auto query = torch::ones({2, kHeads, 4, kDim}, torch::kDouble);
    const auto output = attention(query, entries.key, entries.value, {.mask = entries.mask});
    EXPECT_FALSE(output.isnan().any().item<bool>());
  }
}

TEST_F(KVCacheTest, NumKeysIsThatOfTheNextAppend) {
  for (const int64_t window : {0, 3}) {
    KVCache cache(cache_options(2, window == 0 ? 40 : 4, window));
    for (const int64_t tokens : {1, 2, 1, 7, 1, 1, 3}) {
      const auto lengths = torch::tensor({tokens, tokens - 1});
      const int64_t keys = cache.num_keys(tokens, lengths);
      EXPECT_EQ(cache
                    .append(torch::randn({2, kKvHeads, tokens, kDim}, torch::kDouble),
                            torch::randn({2, kKvHeads, tokens, kValueDim}, torch::kDouble), lengths)
                    .key.size(2),
                keys);
      EXPECT_EQ(cache.entries().key.size(2), cache.num_keys(0));
    }
  }
}

TEST_F(KVCacheTest, AWindowDropsOldTokens) {
  for (const int64_t capacity : {4, 7}) {
    Sides sides(cache_options(2, capacity, /*window=*/4));
    for (int n = 0; n < 30; ++n) sides.step(1);
    for (const int64_t tokens : {2, 5, 3, 20, 1, 8, 1}) sides.step(tokens);  // 20 and 8 exceed the slots
    EXPECT_EQ(sides.cache.lengths()[0].item<int64_t>(), 70);
    sides.step(1);
  }
}

TEST_F(KVCacheTest, AWindowThatHasForgottenTokensCanBeginAnew) {
  Sides sides(cache_options(3, 6, /*window=*/4));
  for (int n = 0; n < 50; ++n) sides.step(1);
  sides.cache.truncate(0);
  for (auto& sequence : sides.sequences) sequence.truncate(0);
  for (const int64_t tokens : {2, 1, 7, 1}) sides.step(tokens);
  for (int n = 0; n < 50; ++n) sides.step(1);
  sides.truncate({61, 0, 60});  // only one of three sequences is truncated
  for (const int64_t tokens : {1, 5, 1}) sides.step(tokens);
}

TEST_F(KVCacheTest, ChecksATruncationWithoutMakingIt) {
  KVCache cache(cache_options(1, 6, /*window=*/4));
  const auto key = torch::ones({1, kKvHeads, 20, kDim}, torch::kDouble);
  cache.append(key, torch::ones({1, kKvHeads, 20, kValueDim}, torch::kDouble));
  cache.check_truncate(0);
  cache.check_truncate(18);
  EXPECT_EQ(error_of([&] { cache.check_truncate(17); }),
            "attend::KVCache: lengths: expected at least 18, the least length whose window is still stored, "
            "got 17 for sequence "
            "0");
  EXPECT_EQ(cache.lengths().item<int64_t>(), 20);
}

TEST_F(KVCacheTest, NoTokensSeeNoMoreThanTheWindow) {
  const auto none = [](int64_t channels) { return torch::ones({1, kKvHeads, 0, channels}, torch::kDouble); };
  for (const int64_t window : {0, 4}) {
    KVCache cache(cache_options(1, 8, window));
    cache.append(torch::ones({1, kKvHeads, 8, kDim}, torch::kDouble),
                 torch::ones({1, kKvHeads, 8, kValueDim}, torch::kDouble));
    const auto before = cache.clone();
    const auto entries = cache.append(none(kDim), none(kValueDim));
    EXPECT_EQ(entries.key.size(2), window == 0 ? 8 : 3);
    EXPECT_EQ(entries.value.size(2), window == 0 ? 8 : 3);
    EXPECT_TRUE(same_bits(cache.entries().key, before.entries().key));
    EXPECT_TRUE(torch::equal(cache.lengths(), before.lengths()));
  }
}

TEST_F(KVCacheTest, AWindowServesSequencesOfDifferentLengths) {
  Sides sides(cache_options(3, 6, /*window=*/4));
  sides.step(9, {9, 2, 0});
  for (int n = 0; n < 20; ++n) {
    sides.step(2, {n % 3, 2, 1});
    sides.step(1);
  }
  sides.step(30, {30, 3, 13});
  sides.step(1);
}

TEST_F(KVCacheTest, AWindowTruncatesWithinItsCapacity) {
  Sides sides(cache_options(2, /*capacity=*/10, /*window=*/4));
  for (int n = 0; n < 60; ++n) {
    sides.step(3);
    const auto lengths = sides.cache.lengths();
    sides.truncate({lengths[0].item<int64_t>() - n % 3, lengths[1].item<int64_t>() - (n + 1) % 3});
    sides.step(2, {n % 3, 1});
  }
}

TEST_F(KVCacheTest, SelectsSequences) {
  Sides sides(cache_options(3, 20));
  sides.step(5, {5, 2, 3});
  const auto select = [&](const std::vector<int64_t>& chosen) {
    sides.cache.select(torch::tensor(chosen, torch::kLong));
    std::vector<Sequence> selected;
    for (const auto b : chosen) selected.push_back(sides.sequences[static_cast<size_t>(b)]);
    sides.sequences = selected;
  };
  select({1, 1, 0});
  sides.step(2);
  select({1, 0});  // the longest sequence is not selected
  sides.step(1);
  select({0, 0, 1, 1, 0});
  sides.step(3, {1, 2, 3, 0, 1});
}

TEST_F(KVCacheTest, EntriesServeQueriesOfAnotherSequence) {
  KVCache cache(cache_options(2, 20));
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

TEST_F(KVCacheTest, RefusesInputsThatRequireAGradient) {
  KVCache cache(cache_options(1, 4));
  const auto key = torch::ones({1, kKvHeads, 1, kDim}, torch::kDouble).requires_grad_();
  const auto value = torch::ones({1, kKvHeads, 1, kValueDim}, torch::kDouble);
  EXPECT_EQ(error_of([&] { cache.append(key, value); }),
            "attend::KVCache: key: expected a tensor that requires no gradient, as the cache is not "
            "differentiable (use "
            "torch::NoGradGuard), got a tensor that requires a gradient");
  const auto scaled = value.clone().requires_grad_() * 2;
  EXPECT_EQ(error_of([&] { cache.append(key.detach(), scaled); }),
            "attend::KVCache: value: expected a tensor that requires no gradient, as the cache is not "
            "differentiable (use "
            "torch::NoGradGuard), got a tensor that requires a gradient");
  EXPECT_EQ(cache.lengths().item<int64_t>(), 0);
  const torch::NoGradGuard no_grad;
  EXPECT_FALSE(cache.append(key, scaled).key.requires_grad());
}

TEST_F(KVCacheTest, ACloneIsIndependent) {
  for (const int64_t window : {0, 4}) {
    Sides sides(cache_options(2, window == 0 ? 40 : 6, window));
    sides.step(5, {5, 3});
    Sides copy(cache_options(2, 1));
    copy.cache = sides.cache.clone();
    copy.sequences = sides.sequences;
    for (const int64_t tokens : {1, 2, 1}) sides.step(tokens);
    for (const int64_t tokens : {1, 3, 1}) copy.step(tokens);
    sides.step(1);
  }
}

TEST_F(KVCacheTest, AppendsItsOwnEntries) {
  KVCache cache(cache_options(2, 20));
  const auto key = torch::randn({2, kKvHeads, 4, kDim}, torch::kDouble),
             value = torch::randn({2, kKvHeads, 4, kValueDim}, torch::kDouble);
  auto entries = cache.append(key, value);
  entries = cache.append(entries.key, entries.value, torch::tensor({4, 3}));
  EXPECT_TRUE(torch::equal(entries.key[0], torch::cat({key[0], key[0]}, 1)));
  EXPECT_TRUE(torch::equal(entries.key[1].slice(1, 1), torch::cat({key[1], key[1].slice(1, 1)}, 1)));
  EXPECT_TRUE(torch::equal(entries.value[1].slice(1, 1), torch::cat({value[1], value[1].slice(1, 1)}, 1)));
}

/// Makes the allocator of the CPU fail after `successes` allocations, during the lifetime of this object.
class FailingAllocator : public c10::Allocator {
 public:
  explicit FailingAllocator(int64_t successes) : successes_(successes), allocator_(c10::GetCPUAllocator()) {
    c10::SetCPUAllocator(this);
  }
  ~FailingAllocator() override { c10::SetCPUAllocator(allocator_); }
  FailingAllocator(const FailingAllocator&) = delete;
  FailingAllocator& operator=(const FailingAllocator&) = delete;

  c10::DataPtr allocate(size_t bytes) override {
    if (successes_-- == 0) throw std::bad_alloc();
    return allocator_->allocate(bytes);
  }
  void copy_data(void* destination, const void* source, size_t bytes) const override {
    default_copy_data(destination, source, bytes);
  }

 private:
  int64_t successes_;
  c10::Allocator* allocator_;
};

/// Calls `change` with an allocator that fails at the first, second, ... allocation, until the call succeeds.
/// After each failure the cache must be as before.
template <typename Change>
void expect_unchanged_by_failures(KVCache& cache, Change change) {
  const auto before = cache.clone();
  for (int64_t successes = 0;; ++successes) {
    bool has_failed = false;
    try {
      const FailingAllocator allocator(successes);
      change();
    } catch (const std::bad_alloc&) {
      has_failed = true;
    }
    if (!has_failed) {
      EXPECT_GT(successes, 0);
      return;
    }
    const auto entries = cache.entries(), expected = before.entries();
    EXPECT_TRUE(torch::equal(cache.lengths(), before.lengths())) << successes;
    EXPECT_TRUE(torch::equal(entries.key, expected.key)) << successes;
    EXPECT_TRUE(torch::equal(entries.value, expected.value)) << successes;
    EXPECT_EQ(cache.options().batch(), before.options().batch());
  }
}

TEST_F(KVCacheTest, AFailedAllocationLeavesTheCacheUnchanged) {
  for (const int64_t window : {0, 4}) {
    KVCache cache(cache_options(3, window == 0 ? 40 : 6, window));
    const auto append = [&](int64_t tokens, const torch::Tensor& lengths) {
      const auto key = torch::randn({3, kKvHeads, tokens, kDim}, torch::kDouble),
                 value = torch::randn({3, kKvHeads, tokens, kValueDim}, torch::kDouble);
      expect_unchanged_by_failures(cache, [&] { cache.append(key, value, lengths); });
    };
    append(7, torch::tensor({7, 4, 6}));
    append(2, torch::tensor({0, 2, 1}));
    append(14, torch::tensor({14, 3, 9}));  // more tokens than slots
    append(1, torch::tensor({0, 1, 1}));
    const auto shorter = cache.lengths() - torch::tensor({2, 0, 1});
    expect_unchanged_by_failures(cache, [&] { cache.truncate(shorter); });
    for (const auto& sequences : {torch::tensor({1, 2, 2}), torch::tensor({2, 0})}) {
      expect_unchanged_by_failures(cache, [&] { cache.select(sequences); });
    }
  }
}

TEST_F(KVCacheTest, ErrorsNameTheArgument) {
  const auto key = torch::ones({2, kKvHeads, 3, kDim}, torch::kDouble),
             value = torch::ones({2, kKvHeads, 3, kValueDim}, torch::kDouble);
  KVCache cache(cache_options(2, 5));
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
            "attend::KVCache: lengths: expected 0 ... 3, the number of tokens, got 4 for sequence 0");
  EXPECT_EQ(error_of([&] { cache.append(key, value, torch::tensor({1})); }),
            "attend::KVCache: lengths: expected int64 [2], got int64 [1]");
  EXPECT_EQ(error_of([&] { cache.truncate(2); }),
            "attend::KVCache: lengths: expected 0 ... 1, the length of the sequence, got 2 for sequence 0");
  EXPECT_EQ(error_of([&] { cache.truncate(-1); }),
            "attend::KVCache: lengths: expected 0 ... 1, the length of the sequence, got -1 for sequence 0");
  EXPECT_EQ(error_of([&] { cache.select(torch::tensor({0, 2})); }),
            "attend::KVCache: sequences: expected indices in 0 ... 1, got 2");
  EXPECT_EQ(cache.lengths()[1].item<int64_t>(), 3);  // the errors left the length unchanged
  KVCache window(cache_options(1, 4, 4));
  for (int n = 0; n < 4; ++n) window.append(key.slice(0, 1), value.slice(0, 1));
  EXPECT_EQ(error_of([&] { window.truncate(2); }),
            "attend::KVCache: lengths: expected at least 9, the least length whose window is still stored, "
            "got 2 for sequence 0");
  EXPECT_EQ(error_of([] { KVCache(cache_options(1, 3, 4)); }),
            "attend::KVCache: capacity: expected at least 4, got 3");
  EXPECT_EQ(error_of([] { KVCache(cache_options(1, 0)); }),
            "attend::KVCache: capacity: expected at least 1, got 0");
  EXPECT_EQ(
      error_of([] { KVCache(KVCacheOptions(1, 64).options(torch::kLong)); }),
      "attend::KVCache: options: expected dtype float64, float32, bfloat16 or float16, got int64 [1, 1, "
      "2048, 64]");
}

}  // namespace
}  // namespace attend::testing
