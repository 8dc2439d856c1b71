#include "plot/weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/nan_to_num.h>

#include "core/checks.h"

namespace attend::plot {
namespace {

void check_labels(const char* function, const char* argument, const std::vector<std::string>& labels,
                  int64_t expected) {
  const auto count = static_cast<int64_t>(labels.size());
  if (count != 0 && count != expected) {
    checks::fail(function, argument, c10::str(expected, " labels or none"), c10::str(count));
  }
}

}  // namespace

at::Tensor weights_as_bytes(const char* function, const at::Tensor& weights, const PlotLabels& labels,
                            int64_t min_dim, int64_t max_dim) {
  checks::check_strided(function, "weights", weights);
  checks::check_floating(function, "weights", weights);
  if (weights.dim() < min_dim || weights.dim() > max_dim) {
    checks::fail(function, "weights", c10::str(min_dim, " to ", max_dim, " dimensions"),
                 checks::describe(weights));
  }
  check_labels(function, "labels.queries", labels.queries, weights.size(-2));
  check_labels(function, "labels.keys", labels.keys, weights.size(-1));
  auto values = weights.detach().cpu().to(at::kDouble);
  while (values.dim() < 4) values = values.unsqueeze(0);
  return (at::nan_to_num(values, 0.0).clamp(0, 1) * 255).round().to(at::kByte).contiguous();
}

}  // namespace attend::plot
