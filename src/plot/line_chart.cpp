#include <attend/plot.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "core/checks.h"
#include "plot/svg.h"

namespace attend {
namespace {

using plot::Anchor;
using plot::Point;
using plot::Svg;

constexpr const char* kFunction = "line_chart_svg";
constexpr const char* kGridColor = "#ddd";
constexpr std::array<const char*, 8> kSeriesColors = {"#c8553d", "#3b7a57", "#2f6db5", "#b58a2f",
                                                      "#7d4e9e", "#4fa3a5", "#8c564b", "#555"};

// Sizes in pixels. A panel consists of, from top to bottom, the title, the plot area, the tick labels and the
// axis label.
constexpr double kTitleHeight = 40, kTickLabelHeight = 20, kAxisLabelHeight = 24;
constexpr double kTickLabelWidth = 64, kAxisLabelWidth = 20, kLegendGap = 16, kLegendRow = 20, kSample = 20;

/// Returns the coordinates of all points of a chart along one axis.
std::vector<double> coordinates(const LineChart& chart, double std::pair<double, double>::*coordinate) {
  std::vector<double> values;
  for (const auto& series : chart.series) {
    for (const auto& point : series.points) values.push_back(point.*coordinate);
  }
  return values;
}

/// Returns the smallest value that is at least `step` and is 1, 2 or 5 times a power of ten.
double round_step(double step) {
  const double power = std::pow(10.0, std::floor(std::log10(step)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= step * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

/// Returns the multiples of a round step from the last one at or below `low` to the first one at or above
/// `high`.
std::vector<double> linear_ticks(double low, double high) {
  constexpr int kIntervals = 6, kMaxTicks = 2 * kIntervals;
  constexpr double kTolerance = 1e-9;
  const double step = round_step((high - low) / kIntervals);
  const double first = std::floor(low / step + kTolerance), last = std::ceil(high / step - kTolerance);
  std::vector<double> ticks;
  for (int n = 0; n < kMaxTicks && first + n <= last; ++n) ticks.push_back((first + n) * step);
  return ticks;
}

/// Returns powers of ten that cover the range; for a range of less than two decades, also 2 and 5 times
/// these.
std::vector<double> logarithmic_ticks(double low, double high) {
  constexpr double kTolerance = 1e-9, kMaxDecades = 8;
  const double first = std::floor(std::log10(low) + kTolerance),
               last = std::ceil(std::log10(high) - kTolerance);
  const double stride = std::max(1.0, std::ceil((last - first) / kMaxDecades));
  std::vector<double> ticks;
  const auto steps = static_cast<int>(std::ceil((last - first) / stride)) + 1;
  for (int step = 0; step < steps; ++step) {
    const double exponent = first + step * stride;
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10.0, exponent);
      const bool is_drawn = factor == 1 || (high / low < 100 && exponent < last);
      if (is_drawn && tick > 0 && std::isfinite(tick)) ticks.push_back(tick);
    }
  }
  // Of the ticks outside the range, only the nearest on each side is kept.
  while (ticks.size() > 2 && ticks[1] <= low) ticks.erase(ticks.begin());
  while (ticks.size() > 2 && ticks[ticks.size() - 2] >= high) ticks.pop_back();
  return ticks;
}

/// Maps values to pixels.
struct Axis {
  AxisScale scale;
  double low, high;           ///< the range of values
  double begin = 0, end = 0;  ///< the pixels of `low` and `high`
  std::vector<double> ticks;

  double operator()(double value) const {
    const double clamped = std::clamp(value, low, high);
    const double fraction = scale == AxisScale::linear
                                ? (clamped - low) / (high - low)
                                : (std::log(clamped) - std::log(low)) / (std::log(high) - std::log(low));
    return begin + fraction * (end - begin);
  }
};

/// Fails for values of a magnitude at which ranges or ticks would not be finite.
void check_values(const ChartAxis& axis, const char* name, const std::vector<double>& values) {
  constexpr double kMax = 1e300;
  const bool is_log = axis.scale == AxisScale::logarithmic;
  for (const double value : values) {
    if (!(std::abs(value) <= kMax) || (is_log && value < 1 / kMax)) {
      checks::fail(
          kFunction, name,
          is_log ? "values from 1e-300 to 1e300 on a logarithmic axis" : "values from -1e300 to 1e300",
          c10::str(value));
    }
  }
}

/// Widens the range if `low` and `high` are equal or nearly equal.
void widen(AxisScale scale, double& low, double& high) {
  constexpr double kMinRange = 1e-300;
  if (high - low > kMinRange) return;
  if (scale == AxisScale::logarithmic) {
    low /= 2;
    high *= 2;
  } else {
    const double margin = std::abs(low) > kMinRange ? std::abs(low) / 2 : 1;
    low -= margin;
    high += margin;
  }
}

Axis axis_of(const ChartAxis& given, const char* name, const std::vector<double>& values) {
  std::vector<double> limits = given.ticks;
  if (given.minimum) limits.push_back(*given.minimum);
  if (given.maximum) limits.push_back(*given.maximum);
  check_values(given, name, values);
  check_values(given, name, limits);
  const auto [least, largest] = std::minmax_element(values.begin(), values.end());
  double low = given.minimum.value_or(*least), high = given.maximum.value_or(*largest);
  if (low <= high) widen(given.scale, low, high);
  low = given.minimum.value_or(low);
  high = given.maximum.value_or(high);
  if (low >= high) {
    checks::fail(kFunction, name, "a minimum below the maximum", c10::str(low, " and ", high));
  }
  Axis axis{.scale = given.scale, .low = low, .high = high, .ticks = given.ticks};
  if (!given.ticks.empty()) return axis;
  axis.ticks = given.scale == AxisScale::linear ? linear_ticks(low, high) : logarithmic_ticks(low, high);
  if (!given.minimum) axis.low = std::min(low, axis.ticks.front());
  if (!given.maximum) axis.high = std::max(high, axis.ticks.back());
  return axis;
}

/// Formats a value with up to six significant digits, independently of the locale.
std::string tick_label(double value) {
  constexpr int kDigits = 6;
  std::array<char, 32> buffer{};
  const auto result = std::to_chars(buffer.begin(), buffer.end(), value, std::chars_format::general, kDigits);
  return {buffer.begin(), result.ptr};
}

void draw_axes(Svg& svg, const LineChart& chart, const Axis& x, const Axis& y) {
  const auto is_inside = [](const Axis& axis, double tick) { return tick >= axis.low && tick <= axis.high; };
  for (const double tick : x.ticks) {
    if (!is_inside(x, tick)) continue;
    svg.line({x(tick), y.begin}, {x(tick), y.end}, kGridColor);
    svg.text({x(tick), y.begin + kTickLabelHeight - 4}, tick_label(tick), {.anchor = Anchor::middle});
  }
  for (const double tick : y.ticks) {
    if (!is_inside(y, tick)) continue;
    svg.line({x.begin, y(tick)}, {x.end, y(tick)}, kGridColor);
    svg.text({x.begin - 6, y(tick) + 4}, tick_label(tick), {.anchor = Anchor::end});
  }
  svg.text({(x.begin + x.end) / 2, y.begin + kTickLabelHeight + kAxisLabelHeight - 8}, chart.x.label,
           {.anchor = Anchor::middle});
  svg.text({x.begin - kTickLabelWidth, (y.begin + y.end) / 2}, chart.y.label,
           {.anchor = Anchor::middle, .vertical = true});
}

void draw_series(Svg& svg, const ChartSeries& series, const Axis& x, const Axis& y, const char* color) {
  constexpr double kRadius = 2.5;
  std::vector<Point> points;
  points.reserve(series.points.size());
  for (const auto& [value_x, value_y] : series.points) points.push_back({x(value_x), y(value_y)});
  svg.polyline(points, color);
  for (const auto& point : points) svg.circle(point, kRadius, color);
}

double legend_width(const LineChart& chart) {
  double widest = 0;
  for (const auto& series : chart.series) widest = std::max(widest, plot::text_width(series.name));
  return kLegendGap + kSample + 6 + widest;
}

double panel_width(const LineChart& chart) {
  return kAxisLabelWidth + kTickLabelWidth + chart.width + legend_width(chart);
}

double panel_height(const LineChart& chart) {
  const double legend = kLegendRow * static_cast<double>(chart.series.size());
  return kTitleHeight + std::max(chart.height, legend) + kTickLabelHeight + kAxisLabelHeight;
}

/// Draws a chart with its left edge at `left`.
void draw_chart(Svg& svg, const LineChart& chart, double left) {
  if (!(chart.width > 0 && chart.height > 0)) {
    checks::fail(kFunction, "chart", "a positive width and height",
                 c10::str(chart.width, " and ", chart.height));
  }
  const auto values_x = coordinates(chart, &std::pair<double, double>::first);
  const auto values_y = coordinates(chart, &std::pair<double, double>::second);
  if (values_x.empty()) checks::fail(kFunction, "chart.series", "at least one point", "none");
  auto x = axis_of(chart.x, "chart.x", values_x), y = axis_of(chart.y, "chart.y", values_y);
  x.begin = left + kAxisLabelWidth + kTickLabelWidth;
  x.end = x.begin + chart.width;
  y.begin = kTitleHeight + chart.height;
  y.end = kTitleHeight;
  svg.text({x.begin, kTitleHeight / 2 + 4}, chart.title, {.bold = true});
  draw_axes(svg, chart, x, y);
  double row = y.end + kLegendRow / 2;
  for (size_t n = 0; n < chart.series.size(); ++n) {
    const char* const color = kSeriesColors.at(n % kSeriesColors.size());
    draw_series(svg, chart.series[n], x, y, color);
    svg.line({x.end + kLegendGap, row}, {x.end + kLegendGap + kSample, row}, color, 3);
    svg.text({x.end + kLegendGap + kSample + 6, row + 4}, chart.series[n].name);
    row += kLegendRow;
  }
}

}  // namespace

std::string line_chart_svg(const LineChart& chart) { return line_charts_svg({chart}); }

std::string line_charts_svg(const std::vector<LineChart>& charts) {
  if (charts.empty()) checks::fail("line_charts_svg", "charts", "at least one chart", "none");
  double width = 0, height = 0;
  for (const auto& chart : charts) {
    width += panel_width(chart);
    height = std::max(height, panel_height(chart));
  }
  Svg svg(width, height);
  double left = 0;
  for (const auto& chart : charts) {
    draw_chart(svg, chart, left);
    left += panel_width(chart);
  }
  return svg.str();
}

}  // namespace attend
