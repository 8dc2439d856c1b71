#pragma once

// The backward of the delta rule in chunks (delta.h; Yang 2024). With U = diag(beta) Z and its gradient dU,
//
//     Y = (I + diag(beta) B)^-T dU,   dV = diag(beta) Y,   dbeta_t = y_t z_t
//     d(K decayed) = -dV S_0^T,   dS_0 -= (K decayed)^T dV,   dB = -dV U^T, strictly lower triangular

#include "cpu/linear_attention/backward_terms.h"

namespace attend::cpu {
namespace {

/// Computes dU = A^T dread, and overwrites the triangular system of the forward with the one whose solution
/// is Y.
template <typename T>
void begin_grad_written(const LinearBackwardArgs& args, const Chunk& chunk, const T* beta, const T* a,
                        Rows<const T> grad_read) {
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  lower_transposed_times<T, Update::set>(n, width, {a, kMaxChunk}, grad_read,
                                         delta_rows<T>(args, args.delta.grad_written, chunk, width));
  prepare_system<T>(n, /*for_backward=*/true, beta, read_only(key_products<T>(args, chunk)),
                    delta_rows<T>(args, args.delta.system, chunk, kMaxChunk));
}

/// Computes the part of a chunk that does not depend on the gradient of the state at its end: the
/// contributions of its outputs to the gradient of the state at its start and to dU.
template <typename Element>
void prepare_grad_delta(const LinearBackwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  using S = GradientScratch<T>;
  run_chunk_task<S>(args, task, memory, [&](const Chunk& chunk, const S& scratch) {
    const auto& forward = scratch.forward;
    const auto log = log_decays<T>(args, chunk, forward.state.log_decay);
    const auto query = query_rows<Element>(args, chunk, forward.query);
    const auto grad_read = grad_read_rows<Element>(args, chunk, scratch.grad_read);
    if (!log.is_none()) decays_from_start<T>(log, chunk.steps, scratch.start_factors);
    begin_grad_state<T>(args, chunk, log, query, grad_read, scratch.start_factors, forward.state.decayed);
    decayed_products<T>(log, chunk.steps, args.d, query,
                        key_rows<Element>(args, chunk, forward.state.features), forward.product,
                        {forward.products, kMaxChunk});
    begin_grad_written<T>(args, chunk, load_beta(args, chunk, forward.beta), forward.products, grad_read);
  });
}

/// Computes Y for a block of columns of a chunk, in place of dU.
template <typename T>
void solve_grad_chunk(const LinearBackwardArgs& args, const Chunk& chunk, const StateBlock& block,
                      Rows<T> grad_written, const DeltaScratch<T>& scratch) {
  const auto system = delta_rows<T>(args, args.delta.system, chunk, kMaxChunk);
  solve_lower_transposed<T>(chunk.steps, block.width, read_only(system), grad_written,
                            {scratch.values, block.width});
  const int64_t ones = args.normalize ? args.d_v - block.column : -1;
  for (int64_t t = 0; t < chunk.steps; ++t) {
    T* row = scratch.values + t * block.width;
    if (ones >= 0 && ones < block.width) row[ones] = 0;
  }
  copy_matrix<T>({scratch.values, block.width}, chunk.steps, block.width, grad_written);
}

/// Computes a block of the gradient of the state at the start of a chunk from the gradient of the state at
/// its end.
template <typename T>
void advance_grad_delta(const LinearBackwardArgs& args, const Chunk& chunk, const StateBlock& block,
                        const DecayedKeys<T>& keys, const DeltaScratch<T>& scratch) {
  const int64_t width = padded<T>(args.state_width()), n = args.resident_chunks - 1 - chunk.index;
  const auto& [from_start, to_end] = keys;
  const T* beta = load_beta(args, chunk, scratch.beta);
  auto grad_written = delta_rows<T>(args, args.delta.grad_written, chunk, width);
  grad_written.data += block.column;
  // dU += (K decayed to the end) dS'
  gemm_dots<T, Update::add>(chunk.steps, block.width, args.d, {to_end.data, to_end.stride, 1},
                            {block_at<T>(args, args.grad_states, block, n), width}, grad_written);
  solve_grad_chunk<T>(args, chunk, block, grad_written, scratch);
  // dS -= (K decayed from the start)^T dV
  for (int64_t t = 0; t < chunk.steps; ++t) scratch.beta[t] = -scratch.beta[t];
  scale_by_beta<T>(args, beta, read_only(grad_written), chunk.steps, block.column, block.width, T{0},
                   {scratch.scaled, block.width});
  gemm_dots<T, Update::add>(args.d, block.width, chunk.steps, {from_start.data, 1, from_start.stride},
                            {scratch.scaled, block.width},
                            {block_at<T>(args, args.grad_states, block, n + 1), width});
  add_decayed_state<T>(args, args.grad_states, block, n);
}

template <typename T>
void scan_delta_grad_states(const LinearBackwardArgs& args, int64_t task, void* memory) {
  ScratchAllocator allocator(memory);
  const DeltaScratch<T> scratch(allocator, args);
  const auto block = columns_at<T>(args, task);
  load_initial_state<T>(args, args.grad_states, block);
  for (int64_t n = 0; n < args.resident_chunks; ++n) {
    const auto chunk = chunk_at(args, (block.slot + 1) * args.resident_chunks - 1 - n);
    advance_grad_delta<T>(args, chunk, block, decayed_keys<T>(args, chunk), scratch);
  }
  store_final_state<T>(args, args.grad_states, block);
}

/// Computes the gradients of values, keys, log decays and beta of a chunk from Z and Y. scratch.state_t must
/// hold the transposed state at the start of the chunk, and scratch.value_t the transposed U.
template <typename T>
void delta_backward(const LinearBackwardArgs& args, const Chunk& chunk, const ChunkRows<T>& rows,
                    const GradientScratch<T>& scratch) {
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto z = delta_rows<T>(args, args.delta.written, chunk, width);
  const auto y = delta_rows<T>(args, args.delta.grad_written, chunk, width);
  for (int64_t t = 0; t < n; ++t) scratch.grad_beta[t] = dot(z.data + t * width, y.data + t * width, width);
  // dV, 0 in the column of ones, and -dV
  scale_by_beta<T>(args, scratch.forward.beta, read_only(y), n, 0, width, T{0}, {rows.grad_value, width});
  T* negative = scratch.forward.read;
  for (int64_t place = 0; place < n * width; ++place) negative[place] = -rows.grad_value[place];
  // d(K decayed from the start) = -dV S^T
  state_product_backward<T, Update::add>(args, n, rows.log, {negative, width}, rows.key,
                                         scratch.start_factors, scratch, rows.grad_key, scratch.terms.up_to);
  // dB = -dV U^T
  lower_dots<T>(n, args.state_width(), {negative, width}, {scratch.value_t, kMaxChunk},
                {scratch.grad_products, kMaxChunk});
  clear_above<T>(n, {scratch.grad_products, kMaxChunk});
  for (int64_t t = 0; t < n; ++t) scratch.grad_products[t * kMaxChunk + t] = 0;
  decayed_products_backward<T>(rows.log, n, args.d, rows.key, rows.key,
                               read_only(key_products<T>(args, chunk)), {scratch.grad_products, kMaxChunk},
                               scratch.forward.product, rows.grad_key, rows.grad_key,
                               args.grad_log_decay == nullptr ? nullptr : scratch.grad_log);
}

}  // namespace
}  // namespace attend::cpu
