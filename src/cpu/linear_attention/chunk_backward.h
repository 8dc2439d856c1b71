#pragma once

// The backward of a chunk: assembles the terms of backward_terms.h and delta_backward.h, and writes the
// gradients.

#include "cpu/linear_attention/delta_backward.h"

namespace attend::cpu {
namespace {

/// Computes the gradients of a chunk from its rows, the products of its rows, the state at its start and the
/// gradient of the state at its end.
template <typename T>
void chunk_gradients(const LinearBackwardArgs& args, const Chunk& chunk, const ChunkRows<T>& rows,
                     const GradientScratch<T>& scratch) {
  const int64_t n = chunk.steps;
  const T* state = state_at<T>(args, args.states, chunk.slot, chunk.index);
  const T* grad_state = state_at<T>(args, args.grad_states, chunk.slot, chunk.index + 1);
  state_update_backward<T>(args, n, rows, state, grad_state, scratch);
  state_read_backward<T>(args, n, rows, state, scratch);
  intra_chunk_backward<T>(args, n, rows, scratch);
  if (args.needs_grad_delta()) delta_backward<T>(args, chunk, rows, scratch);
  feature_map_backward<T>(args, n, rows.query, rows.grad_query);
  feature_map_backward<T>(args, n, rows.key, rows.grad_key);
  if (args.grad_log_decay != nullptr) add_log_gradients<T>(rows.log, scratch.terms, n, scratch.grad_log);
}

/// Copies the gradients that were accumulated in scratch memory to their tensors.
template <typename T>
void write_gradients(const LinearBackwardArgs& args, const Chunk& chunk, const ChunkRows<T>& rows,
                     const GradientScratch<T>& scratch) {
  const int64_t features = padded<T>(args.d), first = first_key_step(args);
  const Range keys = steps_of(first, args.steps(), chunk);
  const auto write_keys = [&](const StridedTensor& tensor, const T* from, int64_t stride, int64_t columns) {
    write_rows<T>(tensor, chunk, keys, chunk.keys, first, from, stride, columns);
  };
  if (args.grad_query.data != nullptr && rows.grad_query == scratch.grad_query) {
    write_rows<T>(args.grad_query, chunk, chunk.queries, chunk.queries, first_query_step(args),
                  scratch.grad_query, features, args.d);
  }
  if (args.grad_key.data != nullptr && rows.grad_key == scratch.grad_key)
    write_keys(args.grad_key, scratch.grad_key, features, args.d);
  if (args.grad_value.data != nullptr && rows.grad_value == scratch.grad_value) {
    write_keys(args.grad_value, scratch.grad_value, padded<T>(args.state_width()), args.d_v);
  }
  if (args.grad_beta != nullptr)
    write_keys(contiguous_key_tensor(args, args.grad_beta, 1), scratch.grad_beta, 1, 1);
  if (args.grad_log_decay != nullptr) {
    write_keys(contiguous_key_tensor(args, args.grad_log_decay, args.decay_width), scratch.grad_log,
               rows.log.stride, args.decay_width);
  }
}

template <typename Element>
void chunk_backward(const LinearBackwardArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  using S = GradientScratch<T>;
  run_chunk_task<S>(args, task, memory, [&](const Chunk& chunk, const S& scratch) {
    const auto rows = load_chunk<Element>(args, chunk, scratch);
    chunk_gradients<T>(args, chunk, rows, scratch);
    write_gradients<T>(args, chunk, rows, scratch);
  });
}

}  // namespace
}  // namespace attend::cpu
