#include "plot/svg.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "core/json.h"

namespace attend::plot {
namespace {

constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/// Returns the length in bytes of the first character of UTF-8 text if XML 1.0 forbids this character (a
/// control character, U+FFFE or U+FFFF), otherwise 0.
size_t forbidden_length(std::string_view text) {
  if (text.starts_with("\xEF\xBF\xBE") || text.starts_with("\xEF\xBF\xBF")) return 3;
  const auto byte = static_cast<unsigned char>(text[0]);
  return byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r' ? 1 : 0;
}

/// Returns the entity of a character with a meaning in markup; empty for every other character.
std::string_view entity_of(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&#39;";
    default:
      return {};
  }
}

/// Formats a number with up to `decimals` decimals, independently of the locale.
std::string number(double value, int decimals = 2) {
  std::array<char, 512> buffer{};  // the largest double has 309 digits
  const auto result = std::to_chars(buffer.begin(), buffer.end(), value, std::chars_format::fixed, decimals);
  std::string_view text(buffer.data(), static_cast<size_t>(result.ptr - buffer.data()));
  if (text.find('.') != std::string_view::npos) {
    text = text.substr(0, text.find_last_not_of('0') + 1);
    if (text.ends_with('.')) text.remove_suffix(1);
  }
  return std::string(text);
}

std::string attribute(std::string_view name, std::string_view value) {
  std::string text(" ");
  return text.append(name).append("=\"").append(value).append("\"");
}

std::string attribute(std::string_view name, double value) { return attribute(name, number(value)); }

std::string rectangle_element(Point corner, double width, double height, const std::string& color,
                              const std::string& opacity) {
  return "<rect" + attribute("x", corner.x) + attribute("y", corner.y) + attribute("width", width) +
         attribute("height", height) + attribute("fill", color) + opacity + "/>\n";
}

}  // namespace

std::string escape_markup(std::string_view text) {
  const auto utf8 = json::valid_utf8(text);
  std::string result;
  for (std::string_view rest = utf8; !rest.empty();) {
    const size_t forbidden = forbidden_length(rest);
    const auto entity = entity_of(rest[0]);
    result += forbidden > 0 ? kReplacementCharacter : entity.empty() ? rest.substr(0, 1) : entity;
    rest.remove_prefix(std::max<size_t>(forbidden, 1));
  }
  return result;
}

double text_width(std::string_view text) { return 7 * static_cast<double>(text.size()); }

Svg::Svg(double width, double height, int font_size)
    : width_(width), height_(height), font_size_(font_size) {}

void Svg::line(Point from, Point to, const std::string& color, double width) {
  body_ += "<line" + attribute("x1", from.x) + attribute("y1", from.y) + attribute("x2", to.x) +
           attribute("y2", to.y) + attribute("stroke", color) + attribute("stroke-width", width) + "/>\n";
}

void Svg::polyline(const std::vector<Point>& points, const std::string& color, double width) {
  std::string list;
  for (const auto& point : points) {
    if (!list.empty()) list += ' ';
    list += number(point.x) + "," + number(point.y);
  }
  body_ += "<polyline" + attribute("points", list) + attribute("fill", "none") + attribute("stroke", color) +
           attribute("stroke-width", width) + "/>\n";
}

void Svg::circle(Point center, double radius, const std::string& color) {
  body_ += "<circle" + attribute("cx", center.x) + attribute("cy", center.y) + attribute("r", radius) +
           attribute("fill", color) + "/>\n";
}

void Svg::rectangle(Point corner, double width, double height, const std::string& color) {
  body_ += rectangle_element(corner, width, height, color, {});
}

void Svg::rectangle(Point corner, double width, double height, const std::string& color, double opacity) {
  constexpr int kDecimals = 6;
  body_ +=
      rectangle_element(corner, width, height, color, attribute("fill-opacity", number(opacity, kDecimals)));
}

void Svg::text(Point at, std::string_view content, const TextStyle& style) {
  constexpr std::array<std::string_view, 3> kAnchors = {"start", "middle", "end"};
  const auto x = number(at.x), y = number(at.y);
  body_ += "<text" + attribute("x", x) + attribute("y", y) + attribute("fill", style.color);
  if (style.bold) body_ += attribute("font-weight", "bold");
  if (style.vertical) {
    body_ += attribute("transform", "rotate(-90 " + x + " " + y + ")");
  }
  if (style.anchor != Anchor::start) {
    body_ += attribute("text-anchor", kAnchors.at(static_cast<size_t>(style.anchor)));
  }
  body_.append(">").append(escape_markup(content)).append("</text>\n");
}

std::string Svg::str() const {
  const auto width = number(width_), height = number(height_);
  return R"(<svg xmlns="http://www.w3.org/2000/svg")" + attribute("width", width) +
         attribute("height", height) + attribute("viewBox", "0 0 " + width + " " + height) +
         attribute("font-family", "sans-serif") + attribute("font-size", std::to_string(font_size_)) +
         ">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n" + body_ + "</svg>\n";
}

}  // namespace attend::plot
