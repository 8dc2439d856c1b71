#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>

#include <string>
#include <vector>

namespace attend {

/// The tokens beside the rows and columns of a picture, as UTF-8; any characters, they are escaped.
struct PlotLabels {
  std::vector<std::string> queries = {};  ///< Lq of them, or none
  std::vector<std::string> keys = {};     ///< Lk of them, or none
};

/// Attention weights as an SVG picture: a square for each query and key, the darker the nearer the weight is
/// to 1, a panel for each head. `weights`: [Lq, Lk] or [H, Lq, Lk], of any floating dtype, each in 0 ... 1
/// (what is not is drawn as the nearer of the two; NaN as 0). Errors (c10::Error): other shapes, another
/// number of labels.
ATTEND_API std::string attention_svg(const at::Tensor& weights, const PlotLabels& labels = {});

/// A page that needs nothing but itself, to look at the weights of a model: [H, Lq, Lk], or [layers, H, Lq,
/// Lk]; layer and head are chosen, and a token that is pointed at shows what it attends to. Errors: as
/// `attention_svg`.
ATTEND_API std::string attention_html(const at::Tensor& weights, const PlotLabels& labels,
                                      const std::string& title = "Attention");

}  // namespace attend
