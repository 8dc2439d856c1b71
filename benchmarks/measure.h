#pragma once

#include <optional>
#include <vector>

#include "report.h"
#include "row.h"

namespace attend::benchmarks {

/// Verifies, then times. Returns nothing if the result is wrong, and reports it on stderr.
std::optional<Measurement> measure(const Row& row, const Sides& sides, int threads, int pairs);

/// The same for a row whose sides run in their own processes.
std::optional<Measurement> measure_in_own_process(const Row& row, int threads, int pairs);

/// The machine's peak rates with each number of threads.
std::vector<PeakRates> peak_rates(const std::vector<int>& thread_counts);

}  // namespace attend::benchmarks
