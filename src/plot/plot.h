#pragma once

#include <attend/plot.h>

#include <cstdint>
#include <string_view>

namespace attend::plot {

/// Weights as bytes, 0 ... 255, [layers, H, Lq, Lk] on the CPU. Fails, in the name of `function`, on other
/// numbers of dimensions than `least_dim` ... `most_dim` and other numbers of labels.
at::Tensor checked_bytes(const char* function, const at::Tensor& weights, const PlotLabels& labels,
                         int64_t least_dim, int64_t most_dim);

/// Text as it may stand in XML and HTML, between tags and in attributes; control characters, which XML
/// forbids, and what is not UTF-8 become U+FFFD.
std::string escaped(std::string_view text);

}  // namespace attend::plot
