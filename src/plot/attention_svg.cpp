#include <algorithm>

#include "plot/svg.h"
#include "plot/weights.h"

namespace attend {
namespace {

using plot::Anchor;
using plot::Svg;

constexpr int64_t kCell = 14, kGap = 24, kTitle = 20;  // pixels

/// Returns the space for labels in pixels. A label of more than 24 bytes is cut off at the border of the
/// picture.
int64_t space_for(const std::vector<std::string>& labels) {
  constexpr size_t kMaxBytes = 24;
  if (labels.empty()) return 4;
  std::string_view longest;
  for (const auto& label : labels) {
    if (label.size() > longest.size()) longest = label;
  }
  return static_cast<int64_t>(plot::text_width(longest.substr(0, kMaxBytes))) + 8;
}

plot::Point pixel(int64_t x, int64_t y) { return {static_cast<double>(x), static_cast<double>(y)}; }

/// Draws the weights of one head, uint8 [Lq, Lk]. The cell of the first weight has its corner at (left, top).
void draw_head(Svg& svg, const at::Tensor& bytes, int64_t left, int64_t top) {
  const int64_t queries = bytes.size(0), keys = bytes.size(1);
  const auto* weight = bytes.const_data_ptr<uint8_t>();
  svg.rectangle(pixel(left, top), static_cast<double>(kCell * keys), static_cast<double>(kCell * queries),
                "#f4f6fb");
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t j = 0; j < keys; ++j) {
      const int value = *weight++;
      if (value == 0) continue;
      svg.rectangle(pixel(left + kCell * j, top + kCell * i), kCell, kCell, "#1f3a93", value / 255.0);
    }
  }
}

}  // namespace

std::string attention_svg(const at::Tensor& weights, const PlotLabels& labels) {
  const auto bytes = plot::weights_as_bytes("attention_svg", weights, labels, 2, 3)[0];
  const int64_t heads = bytes.size(0), queries = bytes.size(1), keys = bytes.size(2);
  const int64_t left = space_for(labels.queries), top = space_for(labels.keys) + kTitle;
  const int64_t panel = kCell * keys + kGap;
  Svg svg(static_cast<double>(left + panel * heads), static_cast<double>(top + kCell * queries + kGap),
          /*font_size=*/11);
  int64_t baseline = top + kCell - 3;
  for (const auto& label : labels.queries) {
    svg.text(pixel(left - 4, baseline), label, {.anchor = Anchor::end});
    baseline += kCell;
  }
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t first = left + panel * h;
    if (heads > 1) svg.text(pixel(first, kTitle - 6), "head " + std::to_string(h), {.bold = true});
    int64_t x = first + kCell - 3;
    for (const auto& label : labels.keys) {
      svg.text(pixel(x, top - 4), label, {.vertical = true});
      x += kCell;
    }
    draw_head(svg, bytes[h], first, top);
  }
  return svg.str();
}

}  // namespace attend
