#include "lengths.h"

#include <fmt/ranges.h>

#include "compare.h"
#include "sides.h"
#include "verify.h"

namespace attend::benchmarks {
namespace {

struct Contender {
  const char* name;
  Attention run;
  Attention expected;
};

std::vector<Contender> contenders(const Inputs& in) {
  const auto window = attend::window(256, 256);
  return {
      {"attend", ours(in), sdpa(in)},
      {"SDPA", sdpa(in), sdpa(in)},
      {"attend, causal", ours(in, {.mask = causal()}), sdpa(in, {.is_causal = true})},
      {"SDPA, causal", sdpa(in, {.is_causal = true}), sdpa(in, {.is_causal = true})},
      {"attend, window of 256", ours(in, {.mask = window}),
       ours(in, {.mask = window, .backend = Backend::reference})},
  };
}

/// Runs the contenders alternately, and returns the median time of each.
std::vector<double> median_times(const std::vector<Contender>& all, int rounds) {
  std::vector<std::vector<double>> times(all.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t n = 0; n < all.size(); ++n) times[n].push_back(milliseconds([&] { all[n].run(); }));
  }
  std::vector<double> medians;
  for (const auto& samples : times) medians.push_back(median(samples));
  return medians;
}

}  // namespace

std::vector<Series> measure_lengths(int64_t longest, int pairs) {
  std::vector<Series> series;
  for (int64_t length = 512; length <= longest; length *= 2) {
    const auto all = contenders(Inputs(Sizes::self(8, length, 64)));
    for (const auto& contender : all) {
      const auto wrong = difference(contender.run(), contender.expected());
      if (wrong.empty()) continue;
      fmt::print(stderr, "bench: time over the length: {} at {} tokens is {}; not timed\n", contender.name,
                 length, wrong);
      return {};
    }
    const auto times = median_times(all, pairs);
    series.resize(all.size());
    for (size_t n = 0; n < all.size(); ++n) {
      series[n].name = all[n].name;
      series[n].times.emplace_back(length, times[n]);
    }
  }
  return series;
}

}  // namespace attend::benchmarks
