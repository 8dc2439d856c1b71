#pragma once

#include <string>
#include <vector>

namespace attend::benchmarks {

struct Point {
  double x, y;
};

/// A drawing: shapes and text in the order in which they are added, the origin at the top left.
class Svg {
 public:
  Svg(double width, double height);

  enum class Anchor { start, middle, end };

  void line(Point from, Point to, const std::string& color, double width = 1);
  void polyline(const std::vector<Point>& points, const std::string& color);
  void bar(Point corner, double width, double height, const std::string& color);
  void text(Point at, const std::string& content, Anchor anchor = Anchor::start,
            const std::string& color = "#222");

  /// Replaces the file. Throws std::runtime_error where it can't be written.
  void write(const std::string& file) const;

 private:
  double width_, height_;
  std::string body_;
};

}  // namespace attend::benchmarks
