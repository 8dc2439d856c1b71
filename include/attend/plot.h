#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

/// @file
/// Pictures of attention weights, and line charts. Each function returns the text of a file. Labels, names
/// and titles are UTF-8 and may contain any characters: markup in them is escaped, and U+FFFD replaces
/// control characters and invalid UTF-8.

namespace attend {

/// The tokens beside the rows and columns of a picture of attention weights.
struct PlotLabels {
  std::vector<std::string> queries = {};  ///< Lq labels, or none
  std::vector<std::string> keys = {};     ///< Lk labels, or none
};

/// Draws attention weights as an SVG picture: one panel per head, with a square for each query (row) and key
/// (column) whose opacity is the weight. `weights` is [Lq, Lk] or [H, Lq, Lk], of a floating dtype; values
/// outside [0, 1] are clamped, and NaN is drawn as 0.
///
/// Errors (c10::Error): weights of another shape or dtype, and a number of labels that is neither 0 nor the
/// number of queries or keys.
ATTEND_API std::string attention_svg(const at::Tensor& weights, const PlotLabels& labels = {});

/// Makes a self-contained HTML page that shows the attention weights of a model: the reader selects a layer
/// and a head, and pointing at a query shows which keys it attends to. `weights` is [Lq, Lk], [H, Lq, Lk] or
/// [layers, H, Lq, Lk], otherwise as for `attention_svg`.
///
/// Errors (c10::Error): as `attention_svg`.
ATTEND_API std::string attention_html(const at::Tensor& weights, const PlotLabels& labels,
                                      const std::string& title = "Attention");

/// How values are placed along an axis of a chart.
enum class AxisScale {
  linear,       ///< distances are proportional to differences
  logarithmic,  ///< distances are proportional to ratios; all values are positive
};

/// An axis of a chart.
struct ChartAxis {
  std::string label = {};               ///< the quantity and its unit, such as "time (ms)"
  AxisScale scale = AxisScale::linear;  ///< linear or logarithmic
  std::vector<double> ticks = {};       ///< the labelled values; if empty, round values are chosen
  /// Default: the smallest value of the points, or a round value below it.
  std::optional<double> minimum = {};
  /// Default: the largest value of the points, or a round value above it.
  std::optional<double> maximum = {};
};

/// A line of a chart.
struct ChartSeries {
  std::string name;                               ///< the name of the line in the legend
  std::vector<std::pair<double, double>> points;  ///< (x, y), joined in this order
};

/// A chart with one or more lines.
struct LineChart {
  std::string title = {};                ///< above the chart
  std::vector<ChartSeries> series = {};  ///< the lines, in the order of the legend
  ChartAxis x = {};                      ///< the horizontal axis
  ChartAxis y = {};                      ///< the vertical axis
  double width = 480;                    ///< the width of the plot area in pixels
  double height = 320;                   ///< the height of the plot area in pixels
};

/// Draws a line chart with axes, grid lines and a legend as an SVG picture. Points outside the range of an
/// axis are drawn at its nearer end. If an axis has no ticks, round values are chosen, and a minimum or
/// maximum that is not given is extended to the next tick.
///
/// Errors (c10::Error): a chart without points, a value beyond +-1e300 or, on a logarithmic axis, below
/// 1e-300, a minimum that is not below the maximum, and a size that is not positive.
ATTEND_API std::string line_chart_svg(const LineChart& chart);

/// Draws several line charts side by side in one SVG picture.
///
/// Errors (c10::Error): as `line_chart_svg`, and no charts.
ATTEND_API std::string line_charts_svg(const std::vector<LineChart>& charts);

}  // namespace attend
