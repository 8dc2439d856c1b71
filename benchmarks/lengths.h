#pragma once

#include <string>
#include <utility>
#include <vector>

namespace attend::benchmarks {

/// The time of a call at each length.
struct Series {
  std::string name;
  std::vector<std::pair<int64_t, double>> times;  ///< length, median in milliseconds
};

/// Times forward passes of 8 heads, D = 64, at 512 tokens and each doubling up to `longest`, on ATen's
/// threads. Returns nothing if a result is wrong, and reports it on stderr.
std::vector<Series> measure_lengths(int64_t longest, int pairs);

}  // namespace attend::benchmarks
