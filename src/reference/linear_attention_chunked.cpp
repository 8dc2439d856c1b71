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

#include "core/gradients.h"
#include "reference/linear_attention.h"

namespace attend::reference {
namespace {

/// Returns the number of steps of a chunk. A number of steps that is a symbol makes a single chunk, as the
/// traced operations must not depend on it.
c10::SymInt steps_per_chunk(const c10::SymInt& steps) {
  constexpr int64_t kChunk = 64;
  return steps.maybe_as_int() ? c10::SymInt(kChunk) : steps;
}

/// The decays within a chunk. Each is the product of the decays of consecutive steps, computed as the
/// exponential of the sum of their logarithms.
struct Decays {
  at::Tensor between;      ///< [B, H, C, C, 1 or D]: at (t, s) over the steps s + 1 ... t; 0 for s > t
  at::Tensor from_start;   ///< [B, H, C, 1 or D]: at t over the steps up to t
  at::Tensor to_end;       ///< [B, H, C, 1 or D]: at s over the steps after s
  at::Tensor whole_chunk;  ///< [B, H, 1 or D, 1]
};

/// Returns the decays of a chunk. The logarithms of the steps of each interval are summed anew: in a
/// difference of two cumulative sums, small logarithms would be lost beside large ones.
Decays decays_of(const at::Tensor& log_decay) {
  const auto steps = log_decay.sym_size(2);
  const auto ones = at::ones_symint({steps, steps}, log_decay.options().dtype(at::kBool));
  const auto after = at::tril(ones, -1).unsqueeze(-1), visible = at::tril(ones).unsqueeze(-1);
  const auto sums = at::cumsum(at::where(after, log_decay.unsqueeze(3), 0.0), 2);
  const auto between = at::exp(at::where(visible, sums, kMinusInfinity));
  const auto from_start = at::exp(at::cumsum(log_decay, 2));
  return {between, from_start, between.select_symint(2, steps - 1),
          from_start.select_symint(2, steps - 1).unsqueeze(-1)};
}

/// Returns the matrix with sum_d row_td decay_tsd k_sd at (t, s), where decay_ts is `decays.between`; 0 for s
/// > t.
at::Tensor products(const at::Tensor& rows, const at::Tensor& key, const Decays& decays) {
  if (!decays.between.defined()) return at::matmul(rows, key.transpose(-2, -1)).tril();
  if (decays.between.sym_size(-1) == 1) {
    return (at::matmul(rows, key.transpose(-2, -1)) * decays.between.squeeze(-1)).tril();
  }
  return (rows.unsqueeze(3) * decays.between * key.unsqueeze(2)).sum(-1).tril();
}

/// Returns A V for a lower triangular A. The zeros above the diagonal are not multiplied with NaNs and
/// infinities of V, which must not reach earlier rows: these elements become zeros in the product, and make
/// all later rows of their column NaN.
at::Tensor lower_times(const at::Tensor& a, const at::Tensor& values) {
  // In forward mode, ATen fixes the sizes of a trace where only one term of a sum has a tangent.
  const auto terms = has_tangent(values) ? values : values.detach();
  const auto zeros = terms - terms;  // NaN where a value is not finite
  return at::matmul(a, at::where(zeros == 0, values, 0.0)) + at::cumsum(zeros, 2);
}

at::Tensor times(const at::Tensor& tensor, const at::Tensor& decay) {
  return decay.defined() ? tensor * decay : tensor;
}

/// Returns the values u_t that the delta rule writes: u_t = beta_t (v_t - S_0^T (decayed k_t) - sum over s <
/// t of (k_t decay_ts k_s) u_s), the solution of a triangular system (the WY form of the product of the
/// steps).
at::Tensor delta_values(const LinearInputs& in, const at::Tensor& state, const Decays& decays,
                        const c10::SymInt& d_v) {
  const auto steps = in.key.sym_size(2);
  const auto identity = at::eye_symint(steps, in.key.options());
  const auto system = identity + in.beta * products(in.key, in.key, decays).tril(-1);
  const auto predicted = at::matmul(times(in.key, decays.from_start), state);
  const auto values = at::linalg_solve_triangular(system, in.beta * (in.value - predicted), /*upper=*/false,
                                                  /*left=*/true, /*unitriangular=*/true);
  // The delta rule does not apply to the normaliser.
  return at::cat({values.slice_symint(-1, 0, d_v), in.value.slice_symint(-1, d_v)}, -1);
}

LinearInputs chunk_of(const LinearInputs& in, const c10::SymInt& begin, const c10::SymInt& end) {
  const auto part = [&](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.slice_symint(2, begin, end) : tensor;
  };
  return {.query = part(in.query),
          .key = part(in.key),
          .value = part(in.value),
          .log_decay = part(in.log_decay),
          .beta = part(in.beta),
          .state = {}};
}

}  // namespace

LinearAttentionResult linear_attention_chunked(const LinearAttentionCall& call) {
  const auto in = linear_inputs(call);
  const auto steps = in.query.sym_size(2), queries = call.query.sym_size(2);
  const auto chunk_steps = steps_per_chunk(steps);
  auto state = in.state;
  std::vector<at::Tensor> reads = {at::matmul(in.query.slice(2, 0, 0), state)};
  for (c10::SymInt begin = 0; begin < steps; begin += chunk_steps) {
    const auto end = std::min(begin + chunk_steps, steps);
    const auto chunk = chunk_of(in, begin, end);
    const auto decays = chunk.log_decay.defined() ? decays_of(chunk.log_decay) : Decays();
    const auto values =
        chunk.beta.defined() ? delta_values(chunk, state, decays, call.value.sym_size(3)) : chunk.value;
    if (end > steps - queries) {
      reads.push_back(at::matmul(times(chunk.query, decays.from_start), state) +
                      lower_times(products(chunk.query, chunk.key, decays), values));
    }
    state = times(state, decays.whole_chunk) +
            at::matmul(times(chunk.key, decays.to_end).transpose(-2, -1), values);
  }
  auto read = at::cat(reads, 2);
  read = read.slice_symint(2, read.sym_size(2) - queries);
  return {normalized(read, call.scale, call.normalize).to(call.query.scalar_type()), state};
}

}  // namespace attend::reference
