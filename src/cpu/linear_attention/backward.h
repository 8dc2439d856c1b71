#pragma once

// The gradients of a chunk.

#include "cpu/linear_attention/delta_backward.h"

namespace attend::cpu {
namespace {

/// From the chunk's rows and products, the state at its start and the gradient of that at its end.
template <typename T>
void chunk_gradients(const LinearBackwardArgs& args, const Chunk& chunk, const ChunkRows<T>& rows,
                     const GradientScratch<T>& own) {
  const int64_t n = chunk.steps;
  const T* state = state_at<T>(args, args.states, chunk.slot, chunk.index);
  const T* grad_state = state_at<T>(args, args.grad_states, chunk.slot, chunk.index + 1);
  to_state_backward<T>(args, n, rows, state, grad_state, own);
  of_state_backward<T>(args, n, rows, state, own);
  within_chunk_backward<T>(args, n, rows, own);
  if (args.has_delta_rule()) delta_backward<T>(args, chunk, rows, own);
  unmap_gradients<T>(args, n, rows.query, rows.grad_query);
  unmap_gradients<T>(args, n, rows.key, rows.grad_key);
  if (!rows.log.is_none()) add_terms<T>(rows.log, own.terms, n, own.grad_log);
}

/// Those that were put together in scratch.
template <typename T>
void write_gradients(const LinearBackwardArgs& args, const Chunk& chunk, const ChunkRows<T>& rows,
                     const GradientScratch<T>& own) {
  const int64_t features = padded<T>(args.d), first = first_key_step(args);
  const Range keys = steps_of(first, args.steps(), chunk);
  const auto write_keys = [&](const Heads& tensor, const T* from, int64_t stride, int64_t columns) {
    write_rows<T>(tensor, chunk, keys, chunk.keys, first, from, stride, columns);
  };
  if (rows.grad_query == own.grad_query) {
    write_rows<T>(args.grad_query, chunk, chunk.queries, chunk.queries, first_query_step(args),
                  own.grad_query, features, args.d);
  }
  if (rows.grad_key == own.grad_key) write_keys(args.grad_key, own.grad_key, features, args.d);
  if (rows.grad_value == own.grad_value) {
    write_keys(args.grad_value, own.grad_value, padded<T>(args.state_width()), args.d_v);
  }
  if (args.has_delta_rule()) write_keys(of_keys(args, args.grad_beta, 1), own.grad_beta, 1, 1);
  if (!rows.log.is_none()) {
    write_keys(of_keys(args, args.grad_log_decay, args.decay_width), own.grad_log, rows.log.stride,
               args.decay_width);
  }
}

template <typename Element>
void gradients(const LinearBackwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  Scratch scratch(memory);
  const GradientScratch<T> own(scratch, args);
  const auto chunk = chunk_at(args, task);
  const auto rows = load_chunk<Element>(args, chunk, own);
  chunk_gradients<T>(args, chunk, rows, own);
  write_gradients<T>(args, chunk, rows, own);
}

}  // namespace
}  // namespace attend::cpu
