#include "charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "svg.h"

namespace attend::benchmarks {
namespace {

constexpr const char* kGrey = "#999";
constexpr const char* kLight = "#e4e4e4";
constexpr const char* kMet = "#3b7a57";
constexpr const char* kMissed = "#c8553d";
constexpr const char* kUntargeted = "#7a8fa6";

/// From a range of numbers to one of the drawing, logarithmically.
struct LogScale {
  double from, to;    ///< numbers
  double begin, end;  ///< of the drawing

  double operator()(double number) const {
    const double part = std::log(std::clamp(number, from, to) / from) / std::log(to / from);
    return begin + part * (end - begin);
  }
};

std::string color_of(const Measurement& m) {
  return m.target == 0 ? kUntargeted : m.meets_target() ? kMet : kMissed;
}

}  // namespace

void draw_ratios(const std::string& file, const std::vector<Measurement>& measurements) {
  constexpr double kLabels = 470, kWidth = 1000, kRow = 20, kTop = 40;
  const double bottom = kTop + kRow * static_cast<double>(measurements.size());
  const LogScale x{0.5, 32, kLabels + 10, kWidth - 60};
  Svg svg(kWidth, bottom + 20);
  svg.text({10, 20},
           "Times of the other side over attend's: to the right of 1 attend is faster; black: the target");
  for (const double ratio : {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0}) {
    svg.line({x(ratio), kTop - 4}, {x(ratio), bottom}, ratio == 1 ? kGrey : kLight);
    svg.text({x(ratio), bottom + 15}, fmt::format("{}", ratio), Svg::Anchor::middle, kGrey);
  }
  double y = kTop;
  for (const auto& m : measurements) {
    svg.text({kLabels, y + 13}, fmt::format("{}, {}", m.name, threads_text(m.threads)), Svg::Anchor::end);
    const double end = x(m.times.ratio);
    svg.bar({std::min(x(1), end), y + 4}, std::abs(end - x(1)), kRow - 8, color_of(m));
    if (m.target > 0) svg.line({x(m.target), y + 1}, {x(m.target), y + kRow - 1}, "black", 2);
    svg.text({std::max(end, x(std::max(m.target, 1.0))) + 5, y + 14}, fmt::format("{:.2f}", m.times.ratio));
    y += kRow;
  }
  svg.write(file);
}

void draw_lengths(const std::string& file, const std::vector<Series>& series) {
  constexpr double kWidth = 820, kHeight = 460, kLeft = 70, kRight = 600, kTop = 40, kBottom = 410;
  constexpr std::array<const char*, 5> kColors = {"#3b7a57", "#c8553d", "#2f6db5", "#b58a2f", "#7d4e9e"};
  double shortest = 1e300, longest = 0;
  for (const auto& line : series) {
    for (const auto& [length, time] : line.times) {
      shortest = std::min(shortest, time);
      longest = std::max(longest, time);
    }
  }
  const auto& lengths = series.front().times;
  const LogScale x{static_cast<double>(lengths.front().first), static_cast<double>(lengths.back().first),
                   kLeft, kRight};
  const LogScale y{std::pow(10, std::floor(std::log10(shortest))),
                   std::pow(10, std::ceil(std::log10(longest))), kBottom, kTop};
  Svg svg(kWidth, kHeight);
  svg.text({10, 20}, "Forward pass, 8 heads, D = 64, float32: milliseconds over the length");
  for (double time = y.from; time <= y.to * 1.01; time *= 10) {
    svg.line({kLeft, y(time)}, {kRight, y(time)}, kLight);
    svg.text({kLeft - 8, y(time) + 4}, fmt::format("{:g}", time), Svg::Anchor::end, kGrey);
  }
  for (const auto& [length, time] : lengths) {
    const double at = x(static_cast<double>(length));
    svg.line({at, kTop}, {at, kBottom}, kLight);
    svg.text({at, kBottom + 18}, fmt::format("{}", length), Svg::Anchor::middle, kGrey);
  }
  for (size_t n = 0; n < series.size(); ++n) {
    std::vector<Point> points;
    for (const auto& [length, time] : series[n].times)
      points.push_back({x(static_cast<double>(length)), y(time)});
    svg.polyline(points, kColors.at(n));
    const double legend = kTop + 20 * static_cast<double>(n);
    svg.line({kRight + 20, legend - 4}, {kRight + 40, legend - 4}, kColors.at(n), 3);
    svg.text({kRight + 46, legend}, series[n].name);
  }
  svg.write(file);
}

}  // namespace attend::benchmarks
