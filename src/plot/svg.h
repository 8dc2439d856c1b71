#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace attend::plot {

/// Escapes text for XML and HTML, between tags or in attributes. Invalid UTF-8 and characters that XML 1.0
/// forbids become U+FFFD.
std::string escape_markup(std::string_view text);

/// A point of the picture, in pixels from its top left corner.
struct Point {
  double x, y;
};

/// The part of a text that is placed at its position; SVG's text-anchor.
enum class Anchor { start, middle, end };

struct TextStyle {
  Anchor anchor = Anchor::start;
  std::string color = "#222";
  bool bold = false;
  bool vertical = false;  ///< rotated by -90 degrees, so that it reads from bottom to top
};

/// An SVG picture: shapes and texts, drawn in the order in which they are added. Texts are escaped; colours
/// are written as they are.
class Svg {
 public:
  Svg(double width, double height, int font_size = 12);

  void line(Point from, Point to, const std::string& color, double width = 1);
  void polyline(const std::vector<Point>& points, const std::string& color, double width = 2);
  void circle(Point center, double radius, const std::string& color);
  void rectangle(Point corner, double width, double height, const std::string& color);
  void rectangle(Point corner, double width, double height, const std::string& color, double opacity);
  void text(Point at, std::string_view content, const TextStyle& style = {});

  /// Returns the SVG document.
  std::string str() const;

 private:
  double width_, height_;
  int font_size_;
  std::string body_;
};

/// Returns the approximate width of a text in pixels, counting each byte as a letter.
double text_width(std::string_view text);

}  // namespace attend::plot
