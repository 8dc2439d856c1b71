#pragma once

#include <string>
#include <utility>
#include <vector>

namespace attend::benchmarks {

/// What a call takes at each length.
struct Series {
  std::string name;
  std::vector<std::pair<int64_t, double>> times;  ///< length, median in milliseconds
};

/// Forward passes of 8 heads, D = 64, at 512 and each double of it up to the longest, on ATen's threads.
/// Nothing where a result is wrong, which is said on stderr.
std::vector<Series> measure_lengths(int64_t longest, int pairs);

}  // namespace attend::benchmarks
