#pragma once

#include <string>
#include <vector>

#include "lengths.h"
#include "report.h"

namespace attend::benchmarks {

/// Draws a bar for each ratio, with a mark at the target of the ratio.
void draw_ratios(const std::string& file, const std::vector<Measurement>& measurements);

/// Draws the time over the length, a line per series, with logarithmic axes.
void draw_lengths(const std::string& file, const std::vector<Series>& series);

}  // namespace attend::benchmarks
