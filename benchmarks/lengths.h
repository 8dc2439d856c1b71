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

/// Times forward passes of 8 heads with D = 64, for 512, 1024, ... tokens up to `longest`, on ATen's threads.
/// If a result is wrong, reports it on stderr and returns nothing.
std::vector<Series> measure_lengths(int64_t longest, int pairs);

}  // namespace attend::benchmarks
