#include "charts.h"

#include <attend/plot.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "files.h"
#include "plot/svg.h"

namespace attend::benchmarks {
namespace {

constexpr const char* kGrey = "#999";
constexpr const char* kLight = "#e4e4e4";
constexpr const char* kMet = "#3b7a57";
constexpr const char* kMissed = "#c8553d";
constexpr const char* kUntargeted = "#7a8fa6";

/// The logarithmic horizontal axis of the ratios. The ratio `lowest` is at pixel `left`, `highest` at pixel
/// `right`.
struct RatioAxis {
  double lowest, highest;
  double left, right;

  double operator()(double ratio) const {
    const double part = std::log(std::clamp(ratio, lowest, highest) / lowest) / std::log(highest / lowest);
    return left + part * (right - left);
  }
};

std::string color_of(const Measurement& m) {
  return m.target == 0 ? kUntargeted : m.meets_target() ? kMet : kMissed;
}

}  // namespace

void draw_ratios(const std::string& file, const std::vector<Measurement>& measurements) {
  constexpr double kLabels = 470, kWidth = 1000, kRow = 20, kTop = 40;
  const double bottom = kTop + kRow * static_cast<double>(measurements.size());
  const RatioAxis x{0.5, 32, kLabels + 10, kWidth - 60};
  plot::Svg svg(kWidth, bottom + 20);
  svg.text({10, 20},
           "Time of the baseline / time of attend. Right of 1, attend is faster. Black: the target");
  for (const double ratio : {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0}) {
    svg.line({x(ratio), kTop - 4}, {x(ratio), bottom}, ratio == 1 ? kGrey : kLight);
    svg.text({x(ratio), bottom + 15}, fmt::format("{}", ratio),
             {.anchor = plot::Anchor::middle, .color = kGrey});
  }
  double y = kTop;
  for (const auto& m : measurements) {
    svg.text({kLabels, y + 13}, fmt::format("{}, {}", m.name, threads_text(m.threads)),
             {.anchor = plot::Anchor::end});
    const double end = x(m.times.ratio);
    svg.rectangle({std::min(x(1), end), y + 4}, std::abs(end - x(1)), kRow - 8, color_of(m));
    if (m.target > 0) svg.line({x(m.target), y + 1}, {x(m.target), y + kRow - 1}, "black", 2);
    svg.text({std::max(end, x(std::max(m.target, 1.0))) + 5, y + 14}, fmt::format("{:.2f}", m.times.ratio));
    y += kRow;
  }
  write_file(file, svg.str());
}

void draw_lengths(const std::string& file, const std::vector<Series>& series) {
  LineChart chart{.title = "Forward pass, 8 heads, D = 64, float32",
                  .x = {.label = "length (tokens)", .scale = AxisScale::logarithmic},
                  .y = {.label = "time (ms)", .scale = AxisScale::logarithmic},
                  .width = 530,
                  .height = 370};
  for (const auto& [name, times] : series) {
    auto& line = chart.series.emplace_back(ChartSeries{name, {}});
    for (const auto& [length, time] : times) line.points.emplace_back(static_cast<double>(length), time);
  }
  for (const auto& [length, time] : series.front().times) {
    chart.x.ticks.push_back(static_cast<double>(length));
  }
  write_file(file, line_chart_svg(chart));
}

}  // namespace attend::benchmarks
