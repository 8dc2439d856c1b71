#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/// Lines over a logarithmic x axis, side by side in one SVG.
class LineCharts {
 public:
  struct Line {
    std::string name;
    std::vector<std::pair<double, double>> points;  ///< x and y, in the order of x
  };
  struct Chart {
    std::string title;
    std::vector<Line> lines;
    bool log_y = true;  ///< else from 0 to 1
  };

  void add(const Chart& chart) {
    const double left = kGap + static_cast<double>(count_) * (kWidth + kGap);
    ++count_;
    text(left, kTop - 14, chart.title, "start");
    const Axis x = log_axis(chart, /*of_y=*/false, left, left + kWidth);
    const Axis y = chart.log_y ? log_axis(chart, /*of_y=*/true, kTop + kHeight, kTop)
                               : Axis{0, 1, kTop + kHeight, kTop, false};
    for (double n = x.from; n <= x.to * 1.01; n *= 4) {
      line(x(n), kTop, x(n), kTop + kHeight, "#ddd", 1);
      text(x(n), kTop + kHeight + 16, fmt::format("{:g}", n), "middle");
    }
    for (double n = y.from; n <= y.to * 1.01; n = y.is_log ? n * 10 : n + 0.25) {
      line(left, y(n), left + kWidth, y(n), "#ddd", 1);
      text(left - 6, y(n) + 4, fmt::format("{:g}", n), "end");
    }
    for (size_t n = 0; n < chart.lines.size(); ++n) add_line(chart.lines[n], n, x, y, left);
  }

  void write(const std::string& file) const {
    std::ofstream stream(file);
    stream << fmt::format(
                  R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" )"
                  R"(font-size="12"><rect width="100%" height="100%" fill="white"/>)"
                  "\n{}</svg>\n",
                  kGap + static_cast<double>(count_) * (kWidth + kGap), kTop + kHeight + 40, body_)
           << std::flush;
    if (!stream) throw std::runtime_error(fmt::format("{}: it can't be written", file));
  }

 private:
  static constexpr double kWidth = 300, kHeight = 260, kTop = 50, kGap = 70;

  /// From a range of numbers to one of the drawing.
  struct Axis {
    double from, to, begin, end;
    bool is_log;

    double operator()(double number) const {
      const double part =
          is_log ? std::log(number / from) / std::log(to / from) : (number - from) / (to - from);
      return begin + part * (end - begin);
    }
  };

  static Axis log_axis(const Chart& chart, bool of_y, double begin, double end) {
    double least = INFINITY, most = 0;
    for (const auto& each : chart.lines) {
      for (const auto& point : each.points) {
        least = std::min(least, of_y ? point.second : point.first);
        most = std::max(most, of_y ? point.second : point.first);
      }
    }
    if (!of_y) return {least, most, begin, end, true};
    return {std::pow(10, std::floor(std::log10(least))), std::pow(10, std::ceil(std::log10(most))), begin,
            end, true};
  }

  void add_line(const Line& data, size_t number, const Axis& x, const Axis& y, double left) {
    constexpr std::array<const char*, 4> colors = {"#c8553d", "#3b7a57", "#2f6db5", "#7d4e9e"};
    const auto* const color = colors.at(number % colors.size());
    std::string points;
    for (const auto& [of_x, of_y] : data.points) points += fmt::format("{:.1f},{:.1f} ", x(of_x), y(of_y));
    body_ +=
        fmt::format(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>)", points, color) +
        "\n";
    const double at = kTop + kHeight - 8 - 16 * static_cast<double>(number);
    line(left + 10, at - 4, left + 28, at - 4, color, 3);
    text(left + 34, at, data.name, "start");
  }

  void line(double x1, double y1, double x2, double y2, const char* color, int width) {
    body_ += fmt::format(
                 R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="{}"/>)",
                 x1, y1, x2, y2, color, width) +
             "\n";
  }
  void text(double x, double y, const std::string& content, const char* anchor) {
    body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", x, y, anchor, content) +
             "\n";
  }

  std::string body_;
  int count_ = 0;
};
