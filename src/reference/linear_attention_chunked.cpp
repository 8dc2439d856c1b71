#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tril.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <limits>

#include "reference/linear_attention.h"

namespace attend::reference {
namespace {

constexpr int64_t kChunk = 64;
constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

/// What a chunk's decays do, each a product of decays of steps in a row: exp of the sum of their logarithms.
struct Decays {
  at::Tensor between;      ///< [B, H, C, C, 1 or D]: of the steps after s up to t, at (t, s); 0 where s > t
  at::Tensor from_start;   ///< [B, H, C, 1 or D]: up to t
  at::Tensor to_end;       ///< [B, H, C, 1 or D]: after s
  at::Tensor whole_chunk;  ///< [B, H, 1 or D, 1]
};

/// Sums are of the steps between alone, never differences of longer sums: those would lose small decays
/// beside large ones.
Decays decays_of(const at::Tensor& log_decay) {
  const int64_t steps = log_decay.size(2);
  const auto ones = at::ones({steps, steps}, log_decay.options().dtype(at::kBool));
  const auto after = at::tril(ones, -1).unsqueeze(-1), visible = at::tril(ones).unsqueeze(-1);
  const auto sums = at::cumsum(at::where(after, log_decay.unsqueeze(3), 0.0), 2);
  const auto between = at::exp(at::where(visible, sums, kMinusInfinity));
  const auto from_start = at::exp(at::cumsum(log_decay, 2));
  return {between, from_start, between.select(2, steps - 1), from_start.select(2, steps - 1).unsqueeze(-1)};
}

/// (t, s) -> sum over d of row_t k_s times the decay between; 0 where s > t.
at::Tensor products(const at::Tensor& rows, const at::Tensor& key, const Decays& decays) {
  if (!decays.between.defined()) return at::matmul(rows, key.transpose(-2, -1)).tril();
  if (decays.between.size(-1) == 1) {
    return at::matmul(rows, key.transpose(-2, -1)) * decays.between.squeeze(-1);
  }
  return (rows.unsqueeze(3) * decays.between * key.unsqueeze(2)).sum(-1);
}

at::Tensor times(const at::Tensor& tensor, const at::Tensor& decay) {
  return decay.defined() ? tensor * decay : tensor;
}

/// What the delta rule writes: u_t = beta_t (v_t - S_0^T (decayed k_t) - sum over s < t of B_ts u_s), the
/// solution of a triangular system (the WY form of the product of its steps).
at::Tensor delta_values(const LinearInputs& in, const at::Tensor& state, const Decays& decays, int64_t d_v) {
  const int64_t steps = in.key.size(2);
  const auto unit = at::eye(steps, in.key.options());
  const auto system = unit + in.beta * products(in.key, in.key, decays).tril(-1);
  const auto known = at::matmul(times(in.key, decays.from_start), state);
  const auto values = at::linalg_solve_triangular(system, in.beta * (in.value - known), /*upper=*/false,
                                                  /*left=*/true, /*unitriangular=*/true);
  return at::cat({values.slice(-1, 0, d_v), in.value.slice(-1, d_v)}, -1);  // not of the normaliser
}

LinearInputs chunk_of(const LinearInputs& in, int64_t begin, int64_t end) {
  const auto part = [&](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.slice(2, begin, end) : tensor;
  };
  return {part(in.query), part(in.key), part(in.value), part(in.log_decay), part(in.beta), {}};
}

}  // namespace

LinearAttentionResult linear_attention_chunked(const LinearAttentionCall& call) {
  const auto in = linear_inputs(call);
  const int64_t steps = in.query.size(2), queries = call.query.size(2);
  auto state = in.state;
  std::vector<at::Tensor> reads = {at::matmul(in.query.slice(2, 0, 0), state)};
  for (int64_t begin = 0; begin < steps; begin += kChunk) {
    const int64_t end = std::min(begin + kChunk, steps);
    const auto chunk = chunk_of(in, begin, end);
    const auto decays = chunk.log_decay.defined() ? decays_of(chunk.log_decay) : Decays();
    const auto values =
        chunk.beta.defined() ? delta_values(chunk, state, decays, call.value.size(3)) : chunk.value;
    if (end > steps - queries) {
      reads.push_back(at::matmul(times(chunk.query, decays.from_start), state) +
                      at::matmul(products(chunk.query, chunk.key, decays), values));
    }
    state = times(state, decays.whole_chunk) +
            at::matmul(times(chunk.key, decays.to_end).transpose(-2, -1), values);
  }
  auto read = at::cat(reads, 2);
  read = read.slice(2, read.size(2) - queries);
  return {normalized(read, call.scale, call.normalize).to(call.query.scalar_type()), state};
}

}  // namespace attend::reference
