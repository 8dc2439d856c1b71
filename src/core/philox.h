#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace attend {

/// Returns four random words by Philox4x32-7 (Salmon 2011, section 3.3), a function of a counter and a key.
inline std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, uint64_t key) {
  auto key0 = static_cast<uint32_t>(key);
  auto key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 7; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

/// Returns the uniform 16-bit random number that decides whether dropout keeps the weight of query i and key
/// j in head h of batch element b. One call of `philox` yields the numbers of eight consecutive keys.
inline uint32_t dropout_number(uint64_t seed, int64_t b, int64_t h, int64_t i, int64_t j) {
  const auto words = philox({static_cast<uint32_t>(j / 8), static_cast<uint32_t>(i), static_cast<uint32_t>(h),
                             static_cast<uint32_t>(b)},
                            seed);
  return words[static_cast<size_t>(j % 8 / 2)] >> (j % 2 * 16) & 0xffff;
}

/// Returns the threshold for a dropout probability: a weight is kept if its random number is at least the
/// threshold. This rounds p to a multiple of 2^-16.
inline uint32_t dropout_threshold(double p) { return static_cast<uint32_t>(std::lround(p * 65536)); }

/// Returns the factor of the weights that are kept: 1 / (1 - p) for the rounded p; 0 if no weight is kept.
inline double dropout_scale(uint32_t threshold) {
  return threshold < 65536 ? 65536.0 / (65536 - threshold) : 0;
}

}  // namespace attend
