#include "reference/sinks.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/logaddexp.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/where.h>

#include <limits>

namespace attend {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// The sink of each row, [B, H, Lq]. By index, not by expansion: its gradient is then summed in the rows'
/// order, the same for every number of threads.
at::Tensor sinks_of_rows(const at::Tensor& sinks, const at::Tensor& logsumexp) {
  const auto head = at::arange(sinks.size(0), sinks.options().dtype(at::kLong)).view({1, -1, 1});
  return sinks.to(at::kDouble)
      .index_select(0, head.expand(logsumexp.sizes()).reshape(-1))
      .view(logsumexp.sizes());
}

}  // namespace

void check_sinks(const char* function, const at::Tensor& sinks, const AttentionCall& call) {
  checks::is_strided(function, "sinks", sinks);
  checks::on_device(function, "sinks", sinks, call.query.device());
  if (sinks.scalar_type() != call.query.scalar_type() && sinks.scalar_type() != at::kFloat) {
    checks::fail(function, "sinks", "the query's dtype or float32", checks::describe(sinks));
  }
  const int64_t heads = call.query.size(1);
  if (sinks.dim() != 1 || sinks.size(0) != heads) {
    checks::fail(function, "sinks", c10::str("one per head, [", heads, "]"), checks::describe(sinks));
  }
}

/// exp(L - L') = 1 / (1 + exp(sink - L)); 0 for a row that sees nothing.
at::Tensor sink_factors(const at::Tensor& logsumexp, const at::Tensor& sinks) {
  const auto blind = logsumexp.eq(kMinusInfinity);
  const auto seen = at::where(blind, 0.0, logsumexp.to(at::kDouble));
  return at::where(blind, 0.0, at::sigmoid(seen - sinks_of_rows(sinks, logsumexp))).unsqueeze(-1);
}

AttentionWithLse with_sinks(const AttentionWithLse& result, const at::Tensor& sinks) {
  const auto& [output, logsumexp] = result;
  const auto compute = logsumexp.scalar_type();
  const auto factors = sink_factors(logsumexp, sinks).to(compute);
  const auto blind = logsumexp.eq(kMinusInfinity);
  const auto of_rows = sinks_of_rows(sinks, logsumexp);
  const auto joined = at::logaddexp(at::where(blind, 0.0, logsumexp.to(at::kDouble)), of_rows);
  return {(output.to(compute) * factors).to(output.scalar_type()),
          at::where(blind, of_rows, joined).to(compute)};
}

}  // namespace attend
