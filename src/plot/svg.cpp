#include <algorithm>
#include <locale>
#include <sstream>

#include "plot/plot.h"

namespace attend {
namespace {

constexpr int64_t kCell = 14, kGap = 24, kTitle = 20;
constexpr int64_t kLetter = 7;  // about the width of one

/// The parts one after the other, numbers as SVG has them, whatever the program's locale.
template <typename... Parts>
std::string markup(const Parts&... parts) {
  std::ostringstream stream;
  stream.imbue(std::locale::classic());
  (stream << ... << parts);
  return stream.str();
}

/// Room for the longest label, in which a letter counts for each byte.
int64_t room_for(const std::vector<std::string>& labels) {
  size_t longest = 0;
  for (const auto& label : labels) longest = std::max(longest, label.size());
  return labels.empty() ? 4 : kLetter * static_cast<int64_t>(std::min<size_t>(longest, 24)) + 8;
}

std::string text(int64_t x, int64_t y, const std::string& attributes, const std::string& content) {
  return markup("<text x=\"", x, "\" y=\"", y, "\"", attributes, ">", plot::escaped(content), "</text>\n");
}

/// The squares of one head, [Lq, Lk], whose first stands at (left, top).
std::string squares(const at::Tensor& bytes, int64_t left, int64_t top) {
  const int64_t queries = bytes.size(0), keys = bytes.size(1);
  const auto* weight = bytes.const_data_ptr<uint8_t>();
  std::string drawn = markup("<rect x=\"", left, "\" y=\"", top, "\" width=\"", kCell * keys, "\" height=\"",
                             kCell * queries, "\" fill=\"#f4f6fb\"/>\n");
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t j = 0; j < keys; ++j) {
      const int value = *weight++;
      if (value == 0) continue;
      drawn += markup("<rect x=\"", left + kCell * j, "\" y=\"", top + kCell * i, "\" width=\"", kCell,
                      "\" height=\"", kCell, "\" fill=\"#1f3a93\" fill-opacity=\"", value / 255.0, "\"/>\n");
    }
  }
  return drawn;
}

}  // namespace

std::string attention_svg(const at::Tensor& weights, const PlotLabels& labels) {
  const auto bytes = plot::checked_bytes("attention_svg", weights, labels, 2, 3)[0];
  const int64_t heads = bytes.size(0), queries = bytes.size(1), keys = bytes.size(2);
  const int64_t left = room_for(labels.queries), top = room_for(labels.keys) + kTitle;
  const int64_t panel = kCell * keys + kGap;
  const int64_t width = left + panel * heads, height = top + kCell * queries + kGap;
  std::string svg =
      markup("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", width, "\" height=\"", height,
             "\" viewBox=\"0 0 ", width, " ", height, "\" font-family=\"sans-serif\" font-size=\"11\">\n");
  for (int64_t i = 0; i < static_cast<int64_t>(labels.queries.size()); ++i) {
    svg += text(left - 4, top + kCell * i + kCell - 3, " text-anchor=\"end\"",
                labels.queries[static_cast<size_t>(i)]);
  }
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t first = left + panel * h;
    if (heads > 1) svg += text(first, kTitle - 6, " font-weight=\"bold\"", markup("head ", h));
    for (int64_t j = 0; j < static_cast<int64_t>(labels.keys.size()); ++j) {
      const int64_t x = first + kCell * j + kCell - 3;
      svg += text(x, top - 4, markup(" transform=\"rotate(-90 ", x, " ", top - 4, ")\""),
                  labels.keys[static_cast<size_t>(j)]);
    }
    svg += squares(bytes[h], first, top);
  }
  return svg + "</svg>\n";
}

}  // namespace attend
