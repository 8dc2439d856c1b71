#include "reference/dropout.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>

#include <array>

#include "core/philox.h"

namespace attend::reference {
namespace {

/// Four words of 32 bits of each Philox counter, in tensors of int64 that broadcast to each other.
using Words = std::array<at::Tensor, 4>;

constexpr int64_t kWord = 0xffffffff;

at::Tensor low_word(const at::Tensor& numbers) { return numbers.bitwise_and(kWord); }
at::Tensor high_word(const at::Tensor& numbers) { return low_word(numbers.bitwise_right_shift(32)); }

/// The function `philox` of core/philox.h. Products of words wrap around in int64, which keeps their bits.
Words philox(Words counter, const at::Tensor& key) {
  auto key0 = low_word(key), key1 = high_word(key);
  for (int round = 0; round < 7; ++round) {
    const auto product0 = counter[0] * int64_t{0xD2511F53}, product1 = counter[2] * int64_t{0xCD9E8D57};
    counter = {high_word(product1).bitwise_xor(counter[1]).bitwise_xor(key0), low_word(product1),
               high_word(product0).bitwise_xor(counter[3]).bitwise_xor(key1), low_word(product0)};
    key0 = low_word(key0 + int64_t{0x9E3779B9});
    key1 = low_word(key1 + int64_t{0xBB67AE85});
  }
  return counter;
}

/// Returns the function `dropout_number` of core/philox.h for each score, [B, H, rows, Lk].
at::Tensor dropout_numbers(const at::Tensor& seed, const SymScoreShape& shape) {
  const auto positions = [&](const c10::SymInt& first, const c10::SymInt& count, int64_t dim) {
    std::vector<int64_t> sizes(4, 1);
    sizes[static_cast<size_t>(dim)] = -1;
    return at::arange(first, first + count, seed.options()).view(sizes);
  };
  const auto eights = (shape.keys + 7) / 8;  // keys in groups that share a counter
  auto words = philox({positions(0, eights, 3), positions(shape.first_row, shape.rows, 2),
                       positions(0, shape.heads, 1), positions(0, shape.batch, 0)},
                      seed.view({1, 1, 1, 1}));
  const std::vector<c10::SymInt> sizes = {shape.batch, shape.heads, shape.rows, eights};
  std::vector<at::Tensor> halves;
  for (const auto& word : words) {
    halves.push_back(word.bitwise_and(0xffff).expand_symint(sizes));
    halves.push_back(word.bitwise_right_shift(16).expand_symint(sizes));
  }
  return at::stack(halves, -1).flatten(-2).slice_symint(-1, 0, shape.keys);
}

}  // namespace

at::Tensor dropout_factors(const at::Tensor& seed, double p, const SymScoreShape& shape,
                           at::ScalarType dtype) {
  const auto threshold = dropout_threshold(p);
  const auto is_kept = dropout_numbers(seed, shape) >= static_cast<int64_t>(threshold);
  return is_kept.to(dtype) * dropout_scale(threshold);
}

}  // namespace attend::reference
