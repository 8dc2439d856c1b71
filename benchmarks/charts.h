#pragma once

#include <string>
#include <vector>

#include "lengths.h"
#include "report.h"

namespace attend::benchmarks {

/// A bar for each ratio, with a tick at its target.
void draw_ratios(const std::string& file, const std::vector<Measurement>& measurements);

/// The time over the length, a line for each series; both axes logarithmic.
void draw_lengths(const std::string& file, const std::vector<Series>& series);

}  // namespace attend::benchmarks
