#pragma once

#include <optional>
#include <vector>

#include "report.h"
#include "row.h"

namespace attend::benchmarks {

/// Verifies, then times. Nothing where the result is wrong, which is said on stderr.
std::optional<Measurement> measure(const Row& row, const Sides& sides, int threads, int pairs);

/// Of a row whose sides run elsewhere.
std::optional<Measurement> measure_elsewhere(const Row& row, int threads, int pairs);

/// What the machine does at most with these numbers of threads.
std::vector<Bound> bounds_of(const std::vector<int>& thread_counts);

}  // namespace attend::benchmarks
