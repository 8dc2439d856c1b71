#pragma once

// The gradients of a chunk.

#include "linear_attention_delta_backward.h"

namespace attend::cpu {
namespace {

/// From the chunk's rows and products, the state at its start and the gradient of that at its end.
template <typename Element>
void write_gradients(const LinearBackwardArgs& args, const Chunk& chunk,
                     const ChunkRows<Compute<Element>>& rows, const GradientScratch<Compute<Element>>& own) {
  using T = Compute<Element>;
  const int64_t n = chunk.steps, features = padded<T>(args.d);
  const T* state = state_at<T>(args, args.states, chunk.slot, chunk.index);
  const T* grad_state = state_at<T>(args, args.grad_states, chunk.slot, chunk.index + 1);
  to_state_backward<T>(args, n, rows, state, grad_state, own);
  of_state_backward<T>(args, n, rows, state, own);
  within_chunk_backward<T>(args, n, rows, own);
  if (args.has_delta_rule()) delta_backward<T>(args, chunk, rows, own);
  unmap_gradients<T>(args, n, rows.query, rows.grad_query);
  unmap_gradients<T>(args, n, rows.key, rows.grad_key);

  const Range keys = steps_of(first_key_step(args), args.steps(), chunk);
  write_rows<T>(args.grad_query, chunk, chunk.queries, chunk.queries, first_query_step(args), rows.grad_query,
                features, args.d);
  write_rows<T>(args.grad_key, chunk, keys, chunk.keys, first_key_step(args), rows.grad_key, features,
                args.d);
  write_rows<T>(args.grad_value, chunk, keys, chunk.keys, first_key_step(args), rows.grad_value,
                padded<T>(args.state_width()), args.d_v);
  if (args.has_delta_rule()) {
    write_rows<T>(of_keys(args, args.grad_beta, 1), chunk, keys, chunk.keys, first_key_step(args),
                  own.grad_beta, 1, 1);
  }
  if (rows.log.is_none()) return;
  add_terms<T>(rows.log, own.terms, n, own.grad_log);
  write_rows<T>(of_keys(args, args.grad_log_decay, args.decay_width), chunk, keys, chunk.keys,
                first_key_step(args), own.grad_log, rows.log.stride, args.decay_width);
}

template <typename Element>
void gradients(const LinearBackwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  Scratch scratch(memory);
  const GradientScratch<T> own(scratch, args);
  const auto chunk = chunk_at(args, task);
  const auto rows = load_chunk<Element>(args, chunk, own);
  chunk_products<T>(args, chunk.steps, rows, own);
  write_gradients<Element>(args, chunk, rows, own);
}

}  // namespace
}  // namespace attend::cpu
