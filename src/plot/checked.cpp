#include <ATen/TensorOperators.h>
#include <ATen/ops/nan_to_num.h>

#include "core/checks.h"
#include "plot/plot.h"

namespace attend::plot {
namespace {

using checks::describe;
using checks::fail;

void check_labels(const char* function, const char* argument, const std::vector<std::string>& labels,
                  int64_t expected) {
  const auto count = static_cast<int64_t>(labels.size());
  if (count != 0 && count != expected)
    fail(function, argument, c10::str(expected, " or none"), c10::str(count));
}

}  // namespace

at::Tensor checked_bytes(const char* function, const at::Tensor& weights, const PlotLabels& labels,
                         int64_t least_dim, int64_t most_dim) {
  checks::is_strided(function, "weights", weights);
  checks::is_floating(function, "weights", weights);
  if (weights.dim() < least_dim || weights.dim() > most_dim) {
    fail(function, "weights", c10::str(least_dim, " to ", most_dim, " dimensions"), describe(weights));
  }
  check_labels(function, "labels.queries", labels.queries, weights.size(-2));
  check_labels(function, "labels.keys", labels.keys, weights.size(-1));
  auto all = weights.detach().cpu().to(at::kDouble);
  while (all.dim() < 4) all = all.unsqueeze(0);
  return (at::nan_to_num(all, 0.0).clamp(0, 1) * 255).round().to(at::kByte).contiguous();
}

}  // namespace attend::plot
