#include "reference/sinks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>

#include "core/dtypes.h"

namespace attend::reference {
namespace {

/// Returns the sink of each row, [B, H, Lq]. The sinks are repeated by index_select, whose backward sums the
/// gradients in the order of the rows for every number of threads; the backward of expand does not.
at::Tensor row_sinks(const at::Tensor& sinks, const at::Tensor& logsumexp) {
  const auto head = at::arange(sinks.size(0), sinks.options().dtype(at::kLong)).view({1, -1, 1});
  return sinks.to(at::kDouble)
      .index_select(0, head.expand(logsumexp.sizes()).reshape(-1))
      .view(logsumexp.sizes());
}

/// Returns the logsumexp in float64, with 0 for fully masked rows so that differences from it are finite.
at::Tensor finite_lse(const at::Tensor& logsumexp, const at::Tensor& fully_masked) {
  return at::where(fully_masked, 0.0, logsumexp.to(at::kDouble));
}

}  // namespace

/// Returns exp(L - L') = 1 / (1 + exp(sink - L)), and 0 for a fully masked row.
at::Tensor sink_factors(const at::Tensor& logsumexp, const at::Tensor& sinks) {
  const auto fully_masked = logsumexp.eq(kMinusInfinity);
  const auto difference = finite_lse(logsumexp, fully_masked) - row_sinks(sinks, logsumexp);
  return at::where(fully_masked, 0.0, at::sigmoid(difference)).unsqueeze(-1);
}

AttentionWithLse with_sinks(const AttentionWithLse& result, const at::Tensor& sinks) {
  const auto& [output, logsumexp] = result;
  const auto compute = logsumexp.scalar_type();
  const auto factors = sink_factors(logsumexp, sinks).to(compute);
  const auto fully_masked = logsumexp.eq(kMinusInfinity);
  const auto sink = row_sinks(sinks, logsumexp);
  const auto joined = at::logaddexp(finite_lse(logsumexp, fully_masked), sink);
  return {(output.to(compute) * factors).to(output.scalar_type()),
          at::where(fully_masked, sink, joined).to(compute)};
}

}  // namespace attend::reference
