#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

namespace attend::benchmarks {

struct Comparison {
  double ours;      ///< median, in milliseconds
  double baseline;  ///< median, in milliseconds
  double ratio;     ///< the median over the pairs of the times baseline / ours; above 1, attend is faster
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

/// Times both sides alternately, so that other load of the machine affects both sides. If a run is shorter
/// than a millisecond, a measurement repeats it until it lasts a millisecond.
inline Comparison compare(const std::function<void()>& ours, const std::function<void()>& baseline,
                          int pairs) {
  const double once = std::min(milliseconds(ours), milliseconds(baseline));
  const int repeats = once < 1 ? static_cast<int>(1 / std::max(once, 1e-3)) + 1 : 1;
  const auto repeated = [repeats](const std::function<void()>& run) {
    return milliseconds([&] {
             for (int n = 0; n < repeats; ++n) run();
           }) /
           repeats;
  };
  std::vector<double> our_times, baseline_times, ratios;
  for (int pair = 0; pair < pairs; ++pair) {
    our_times.push_back(repeated(ours));
    baseline_times.push_back(repeated(baseline));
    ratios.push_back(baseline_times.back() / our_times.back());
  }
  return {median(our_times), median(baseline_times), median(ratios)};
}

}  // namespace attend::benchmarks
