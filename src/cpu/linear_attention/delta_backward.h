#pragma once

// The gradients of the delta rule in chunks. With U = diag(beta) Z and the gradient dU of what was written,
//
//     Y = (I + diag(beta) B)^-T dU,   dV = diag(beta) Y,   dbeta_t = y_t z_t
//     d(K decayed) = -dV S_0^T,   dS_0 -= (K decayed)^T dV,   dB = -dV U^T, strictly lower triangular

#include "cpu/linear_attention/gradients.h"

namespace attend::cpu {
namespace {

/// dU = A^T dread, and the system that makes Y of it, in the place of the forward's.
template <typename T>
void begin_grad_written(const LinearBackwardArgs& args, const Chunk& chunk, const T* beta, const T* a,
                        Rows<const T> grad_read) {
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  lower_transposed_times<T, Update::set>(n, width, {a, kChunk}, grad_read,
                                         delta_rows<T>(args, args.delta.grad_written, chunk, width));
  prepare_system<T>(n, /*for_backward=*/true, beta, read_only(held_products<T>(args, chunk)),
                    delta_rows<T>(args, args.delta.system, chunk, kChunk));
}

/// What the chunk alone adds to the gradients of the state at its start and of what it writes.
template <typename Element>
void prepare_grad_delta(const LinearBackwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  Scratch scratch(memory);
  const GradientScratch<T> own(scratch, args);
  const auto& of_forward = own.forward;
  const auto chunk = chunk_at(args, task);
  const auto log = log_decays<T>(args, chunk, of_forward.state.log_decay);
  const auto query = query_rows<Element>(args, chunk, of_forward.query);
  const auto grad_read = grad_read_rows<Element>(args, chunk, own.grad_read);
  if (!log.is_none()) decays_from_start<T>(log, chunk.steps, own.start_factors);
  begin_grad_state<T>(args, chunk, log, query, grad_read, own.start_factors, of_forward.state.decayed);
  decayed_products<T>(log, chunk.steps, args.d, query,
                      key_rows<Element>(args, chunk, of_forward.state.features), of_forward.product,
                      {of_forward.products, kChunk});
  begin_grad_written<T>(args, chunk, write_strengths(args, chunk, of_forward.beta), of_forward.products,
                        grad_read);
}

/// Y of a chunk's columns, in the place of the gradients of what it writes.
template <typename T>
void solve_grad_chunk(const LinearBackwardArgs& args, const Chunk& chunk, const StateBlock& block,
                      Rows<T> grad_written, const DeltaScratch<T>& own) {
  const auto system = delta_rows<T>(args, args.delta.system, chunk, kChunk);
  solve_lower_transposed<T>(chunk.steps, block.width, read_only(system), grad_written,
                            {own.values, block.width});
  const int64_t ones = args.normalize ? args.d_v - block.column : -1;
  for (int64_t t = 0; t < chunk.steps; ++t) {
    T* row = own.values + t * block.width;
    if (ones >= 0 && ones < block.width) row[ones] = 0;
  }
  copy_matrix<T>({own.values, block.width}, chunk.steps, block.width, grad_written);
}

/// From the gradient of a block's state at the end of a chunk to that at its start.
template <typename T>
void pass_grad_delta(const LinearBackwardArgs& args, const Chunk& chunk, const StateBlock& block,
                     const DecayedKeys<T>& keys, const DeltaScratch<T>& own) {
  const int64_t width = padded<T>(args.state_width()), n = args.held_chunks - 1 - chunk.index;
  const auto& [from_start, to_end] = keys;
  const T* beta = write_strengths(args, chunk, own.beta);
  auto grad_written = delta_rows<T>(args, args.delta.grad_written, chunk, width);
  grad_written.data += block.column;
  // dU += (K decayed to the end) dS'
  gemm_dots<T, Update::add>(chunk.steps, block.width, args.d, {to_end.data, to_end.stride, 1},
                            {block_at<T>(args, args.grad_states, block, n), width}, grad_written);
  solve_grad_chunk<T>(args, chunk, block, grad_written, own);
  // dS -= (K decayed from the start)^T dV
  for (int64_t t = 0; t < chunk.steps; ++t) own.beta[t] = -own.beta[t];
  strengthen<T>(args, beta, read_only(grad_written), chunk.steps, block.column, block.width, T{0},
                {own.strengths, block.width});
  gemm_dots<T, Update::add>(args.d, block.width, chunk.steps, {from_start.data, 1, from_start.stride},
                            {own.strengths, block.width},
                            {block_at<T>(args, args.grad_states, block, n + 1), width});
  add_decayed_state<T>(args, args.grad_states, block, n);
}

template <typename T>
void delta_grad_states(const LinearBackwardArgs& args, int64_t task, void* memory) {
  Scratch scratch(memory);
  const DeltaScratch<T> own(scratch, args);
  const auto block = columns_at<T>(args, task);
  begin_states<T>(args, args.grad_states, block);
  for (int64_t n = 0; n < args.held_chunks; ++n) {
    const auto chunk = chunk_at(args, (block.slot + 1) * args.held_chunks - 1 - n);
    pass_grad_delta<T>(args, chunk, block, held_keys<T>(args, chunk), own);
  }
  end_states<T>(args, args.grad_states, block);
}

/// Of the value, the key and the logarithms, and of beta, which it writes. `state_t` is the transposed state
/// at the chunk's start, `written_t` the transpose of what the chunk wrote.
template <typename T>
void delta_backward(const LinearBackwardArgs& args, const Chunk& chunk, const ChunkRows<T>& rows,
                    const GradientScratch<T>& own) {
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto z = delta_rows<T>(args, args.delta.written, chunk, width);
  const auto y = delta_rows<T>(args, args.delta.grad_written, chunk, width);
  for (int64_t t = 0; t < n; ++t) own.grad_beta[t] = dot(z.data + t * width, y.data + t * width, width);
  // dV, which is 0 for the column of ones, and -dV
  strengthen<T>(args, own.forward.beta, read_only(y), n, 0, width, T{0}, {rows.grad_value, width});
  T* negative = own.forward.read;
  for (int64_t place = 0; place < n * width; ++place) negative[place] = -rows.grad_value[place];
  // d(K decayed from the start) = -dV S^T
  rows_of_state_backward<T, Update::add>(args, n, rows.log, {negative, width}, rows.key, own.start_factors,
                                         own, rows.grad_key, own.terms.up_to);
  // dB = -dV U^T
  lower_dots<T>(n, args.state_width(), {negative, width}, {own.value_t, kChunk}, {own.grad_products, kChunk});
  clear_above<T>(n, {own.grad_products, kChunk});
  for (int64_t t = 0; t < n; ++t) own.grad_products[t * kChunk + t] = 0;
  decayed_products_backward<T>(rows.log, n, args.d, rows.key, rows.key,
                               read_only(held_products<T>(args, chunk)), {own.grad_products, kChunk},
                               own.forward.product, rows.grad_key, rows.grad_key, own.grad_log);
}

}  // namespace
}  // namespace attend::cpu
