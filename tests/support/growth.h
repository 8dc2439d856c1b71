#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <limits>
#include <string>

namespace attend::testing {

/// Returns the least processor time of three calls, in seconds.
inline double processor_time(const std::function<void()>& call) {
  double least = std::numeric_limits<double>::infinity();
  for (int n = 0; n < 3; ++n) {
    timespec before{}, after{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    call();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    least = std::min(least, static_cast<double>(after.tv_sec - before.tv_sec) +
                                1e-9 * static_cast<double>(after.tv_nsec - before.tv_nsec));
  }
  return least;
}

/// Checks that the time of a call is linear in the size of its input: an input of 16 times the size must take
/// less than 64 times as long, where the square would take 256 times. The time is the processor time of the
/// thread, on which other programs have little influence. `prepare` gets a number of bytes, and returns the
/// call for an input of about this size.
///
/// With ATTEND_GROWTH=10485760 in the environment, prints the times of inputs of 10 KiB, 20 KiB, ... up to
/// 10485760 bytes instead.
inline void expect_linear(const std::string& name,
                          const std::function<std::function<void()>(size_t)>& prepare) {
  constexpr size_t kLeast = 10'240, kSmall = 32'768, kFactor = 16;
  if (const char* const most = std::getenv("ATTEND_GROWTH")) {
    double before = 0;
    for (size_t size = kLeast; size <= std::strtoull(most, nullptr, 10); size *= 2) {
      const double time = processor_time(prepare(size));
      fmt::print("{:40} {:9} bytes {:10.3f} ms, {:5.2f} of half\n", name, size, 1e3 * time,
                 before == 0 ? 0 : time / before);
      before = time;
    }
    return;
  }
  const double small = processor_time(prepare(kSmall)), large = processor_time(prepare(kFactor * kSmall));
  EXPECT_LT(large, 4 * kFactor * small) << name << ": " << small << " s and " << large << " s";
}

}  // namespace attend::testing
