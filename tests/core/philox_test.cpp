#include "core/philox.h"

#include <gtest/gtest.h>

#include <set>

namespace attend {
namespace {

using Words = std::array<uint32_t, 4>;

// The known-answer tests that the authors of the paper publish for Philox4x32 with 7 rounds.
TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox({0, 0, 0, 0}, 0), (Words{0x5f6fb709, 0x0d893f64, 0x4f121f81, 0x4f730a48}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffffffffffff),
            (Words{0x5207ddc2, 0x45165e59, 0x4d8ee751, 0x8c52f662}));
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822),
            (Words{0x4dfccaba, 0x190a87f0, 0xc47362ba, 0xb6b5242a}));
}

TEST(Philox, EveryEightWeightsHaveTheirOwnNumbers) {
  std::set<std::array<uint32_t, 8>> numbers;
  for (int64_t b = 0; b < 2; ++b) {
    for (int64_t h = 0; h < 2; ++h) {
      for (int64_t i = 0; i < 5; ++i) {
        for (int64_t j = 0; j < 200; j += 8) {
          std::array<uint32_t, 8> eight{};
          for (int64_t n = 0; n < 8; ++n)
            eight.at(static_cast<size_t>(n)) = dropout_number(7, b, h, i, j + n);
          numbers.insert(eight);
        }
      }
    }
  }
  EXPECT_EQ(numbers.size(), 2U * 2 * 5 * 25);
}

TEST(Philox, DropoutNumbersAreTheHalvesOfTheWords) {
  const auto words = philox({3, 5, 2, 1}, 7);
  for (int64_t n = 0; n < 8; ++n) {
    const auto word = words.at(static_cast<size_t>(n / 2));
    EXPECT_EQ(dropout_number(7, 1, 2, 5, 24 + n), n % 2 == 0 ? word & 0xffff : word >> 16);
  }
}

}  // namespace
}  // namespace attend
