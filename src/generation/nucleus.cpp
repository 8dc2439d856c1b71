#include "generation/nucleus.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>

#include <cmath>
#include <limits>

namespace attend::generation {
namespace {

constexpr double kMaskedLogit = -std::numeric_limits<double>::infinity();

/// Returns, for n = 0, 1, ..., a bound of the rounding error of the sum of the first n probabilities of a
/// softmax in float64. The bound counts one rounding per term. Each term is the exponential of a logarithm of
/// magnitude up to 64, whose rounding error adds 64 epsilon.
at::Tensor rounding_of_sums(int64_t count) {
  return (at::arange(count, at::kDouble) + 64) * std::numeric_limits<double>::epsilon();
}

}  // namespace

at::Tensor keep_top_k(const at::Tensor& logits, int64_t k) {
  if (k == 0 || k >= logits.size(-1)) return logits;
  const auto [values, indices] = at::topk(logits, k);
  return at::full_like(logits, kMaskedLogit).scatter_(-1, indices, values);
}

/// A token is kept if the more likely tokens have a total probability below p. A sum that differs from p only
/// by rounding errors counts as equal to p: {.5, .3} reach 0.8.
at::Tensor keep_top_p(const at::Tensor& logits, double p) {
  if (p == 1) return logits;
  const auto [values, indices] = at::sort(logits, /*stable=*/true, /*dim=*/-1, /*descending=*/true);
  const auto probabilities = at::softmax(values, -1);
  const auto before = probabilities.cumsum(-1) - probabilities;
  auto is_reached = before >= p - rounding_of_sums(logits.size(-1));
  is_reached.select(-1, 0).fill_(false);
  const auto kept = values.masked_fill(is_reached, kMaskedLogit);
  return at::full_like(logits, kMaskedLogit).scatter_(-1, indices, kept);
}

at::Tensor keep_min_p(const at::Tensor& logits, double p) {
  if (p == 0) return logits;
  const auto least = logits.amax(-1, /*keepdim=*/true) + std::log(p) - rounding_of_sums(1);
  return logits.masked_fill(logits < least, kMaskedLogit);
}

}  // namespace attend::generation
