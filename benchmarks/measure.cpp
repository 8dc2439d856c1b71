#include "measure.h"

#include <ATen/Parallel.h>

#include <map>

#include "verify.h"

namespace attend::benchmarks {
namespace {

/// Of ATen's number of threads.
const Limits& limits() {
  static std::map<int, Limits> known;
  auto& limits = known[at::get_num_threads()];
  if (limits.gflops == 0) limits = measure_limits();
  return limits;
}

}  // namespace

std::optional<Measurement> measure(const Row& row, const Sides& sides, int threads, int pairs) {
  at::set_num_threads(threads);
  const auto wrong = verify(sides);
  if (!wrong.empty()) {
    fmt::print(stderr, "bench: {}: {}, so it is not timed\n", row.name, wrong);
    return {};
  }
  const auto times = compare([&] { sides.ours(); }, [&] { sides.theirs(); }, pairs);
  return Measurement{
      .name = row.name,
      .unit = row.unit,
      .threads = threads,
      .times = times,
      .target = row.target,
      .gflops = sides.flops / times.ours / 1e6,
      .gigabytes = sides.bytes / times.ours / 1e6,
      .of_bound = limits().milliseconds(sides.flops, sides.in_bfloat16, sides.bytes) / times.ours};
}

std::optional<Measurement> measure_elsewhere(const Row& row, int threads, int pairs) {
  try {
    return Measurement{.name = row.name,
                       .unit = row.unit,
                       .threads = threads,
                       .times = row.elsewhere(threads, pairs),
                       .target = row.target};
  } catch (const std::runtime_error& error) {
    fmt::print(stderr, "bench: {}: {}, so it is not timed\n", row.name, error.what());
    return {};
  }
}

std::vector<Bound> bounds_of(const std::vector<int>& thread_counts) {
  std::vector<Bound> bounds;
  for (const int threads : thread_counts) {
    at::set_num_threads(threads);
    bounds.push_back({threads, limits()});
  }
  return bounds;
}

}  // namespace attend::benchmarks
