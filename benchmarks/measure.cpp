#include "measure.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <map>

#include "verify.h"

namespace attend::benchmarks {
namespace {

/// Returns the peak rates with ATen's number of threads, which the first call for each number measures.
const PeakRates& current_peak_rates() {
  static std::map<int, PeakRates> measured;
  const int threads = at::get_num_threads();
  const auto found = measured.find(threads);
  return found != measured.end() ? found->second
                                 : measured.emplace(threads, measure_peak_rates()).first->second;
}

}  // namespace

std::optional<Measurement> measure(const Row& row, const Sides& sides, int threads, int pairs) {
  at::set_num_threads(threads);
  const auto wrong = verify(sides);
  if (!wrong.empty()) {
    fmt::print(stderr, "bench: {}: {}; not timed\n", row.name, wrong);
    return {};
  }
  const auto times = compare([&] { sides.ours(); }, [&] { sides.baseline(); }, pairs);
  return Measurement{
      .name = row.name,
      .unit = row.unit,
      .threads = threads,
      .times = times,
      .target = row.target,
      .gflops = sides.flops / times.ours / 1e6,
      .gigabytes = sides.bytes / times.ours / 1e6,
      .roofline_fraction =
          current_peak_rates().milliseconds(sides.flops, sides.in_bfloat16, sides.bytes) / times.ours};
}

std::optional<Measurement> measure_in_own_process(const Row& row, int threads, int pairs) {
  try {
    return Measurement{.name = row.name,
                       .unit = row.unit,
                       .threads = threads,
                       .times = row.in_own_process(threads, pairs),
                       .target = row.target};
  } catch (const std::runtime_error& error) {
    fmt::print(stderr, "bench: {}: {}; not timed\n", row.name, error.what());
    return {};
  }
}

std::vector<PeakRates> peak_rates(const std::vector<int>& thread_counts) {
  std::vector<PeakRates> all;
  for (const int threads : thread_counts) {
    at::set_num_threads(threads);
    all.push_back(current_peak_rates());
  }
  return all;
}

}  // namespace attend::benchmarks
