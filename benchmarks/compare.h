#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

namespace attend::benchmarks {

struct Comparison {
  double ours;    ///< median, in milliseconds
  double theirs;  ///< median
  double ratio;   ///< median of theirs / ours over the pairs: above 1, ours is faster
};

inline double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

inline double milliseconds(const std::function<void()>& run) {
  const auto start = std::chrono::steady_clock::now();
  run();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

/// Times both sides alternately, so that what else the machine does falls on both. A run shorter than a
/// millisecond is repeated within a measurement until it is that long.
inline Comparison compare(const std::function<void()>& ours, const std::function<void()>& theirs, int pairs) {
  const double once = std::min(milliseconds(ours), milliseconds(theirs));
  const int repeats = once < 1 ? static_cast<int>(1 / std::max(once, 1e-3)) + 1 : 1;
  const auto repeated = [repeats](const std::function<void()>& run) {
    return milliseconds([&] {
             for (int n = 0; n < repeats; ++n) run();
           }) /
           repeats;
  };
  std::vector<double> our_times, their_times, ratios;
  for (int pair = 0; pair < pairs; ++pair) {
    our_times.push_back(repeated(ours));
    their_times.push_back(repeated(theirs));
    ratios.push_back(their_times.back() / our_times.back());
  }
  return {median(our_times), median(their_times), median(ratios)};
}

}  // namespace attend::benchmarks
