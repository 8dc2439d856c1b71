#include "svg.h"

#include <fmt/format.h>

#include "files.h"

namespace attend::benchmarks {
namespace {

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    result += c == '&' ? "&amp;" : c == '<' ? "&lt;" : c == '>' ? "&gt;" : std::string(1, c);
  }
  return result;
}

const char* name_of(Svg::Anchor anchor) {
  return anchor == Svg::Anchor::start ? "start" : anchor == Svg::Anchor::middle ? "middle" : "end";
}

}  // namespace

Svg::Svg(double width, double height) : width_(width), height_(height) {}

void Svg::line(Point from, Point to, const std::string& color, double width) {
  body_ +=
      fmt::format(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="{}" stroke-width="{}"/>)",
                  from.x, from.y, to.x, to.y, color, width) +
      "\n";
}

void Svg::polyline(const std::vector<Point>& points, const std::string& color) {
  std::string list;
  for (const auto& point : points) list += fmt::format("{:.1f},{:.1f} ", point.x, point.y);
  body_ +=
      fmt::format(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>)", list, color) + "\n";
}

void Svg::bar(Point corner, double width, double height, const std::string& color) {
  body_ += fmt::format(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}"/>)", corner.x,
                       corner.y, width, height, color) +
           "\n";
}

void Svg::text(Point at, const std::string& content, Anchor anchor, const std::string& color) {
  body_ += fmt::format(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}" fill="{}">{}</text>)", at.x, at.y,
                       name_of(anchor), color, escaped(content)) +
           "\n";
}

void Svg::write(const std::string& file) const {
  write_file(file, fmt::format(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" )"
                               R"(height="{1}" font-family="sans-serif" font-size="12">)"
                               "\n"
                               R"(<rect width="100%" height="100%" fill="white"/>)"
                               "\n{2}</svg>\n",
                               width_, height_, body_));
}

}  // namespace attend::benchmarks
