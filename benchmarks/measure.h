#pragma once

#include <optional>
#include <vector>

#include "report.h"
#include "row.h"

namespace attend::benchmarks {

/// Verifies the result of a row, and then times both sides. If the result is wrong, reports it on stderr and
/// returns nothing.
std::optional<Measurement> measure(const Row& row, const Sides& sides, int threads, int pairs);

/// Does the same for a row whose sides run in separate processes.
std::optional<Measurement> measure_in_own_process(const Row& row, int threads, int pairs);

/// Returns the peak rates of the machine with each number of threads.
std::vector<PeakRates> peak_rates(const std::vector<int>& thread_counts);

}  // namespace attend::benchmarks
