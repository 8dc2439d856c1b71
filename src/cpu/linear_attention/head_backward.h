#pragma once

// The sequential backward of a head, as one task. It recomputes the state at the start of each chunk, from
// the first chunk to the last, and then computes the gradients from the last chunk to the first. Between the
// two passes it stores the states, B and Z of every chunk; everything else is of one chunk and stays in the
// first-level caches. The results have the same bits as those of the parallel schedule.

#include "cpu/linear_attention/chunk_backward.h"

namespace attend::cpu {
namespace {

/// Scratch memory for one chunk, and the values that are stored for all chunks.
template <typename T>
struct HeadGradientScratch {
  GradientScratch<T> gradients;
  DeltaScratch<T> delta;
  T* states;           ///< [chunks + 1, d, padded state width]
  T* grad_states;      ///< [2, d, padded state width]: at the chunk's start and end
  T* chunk_decays;     ///< [chunks, padded decay width]
  DeltaChunks chunks;  ///< `products` and `written` for all chunks, the others for one

  HeadGradientScratch(ScratchAllocator& allocator, const LinearArgs& args)
      : gradients(allocator, args), delta(allocator, args) {
    const int64_t width = padded<T>(args.state_width()), chunk_count = args.chunks();
    states = allocator.take<T>((chunk_count + 1) * args.d * width);
    grad_states = allocator.take<T>(2 * args.d * width);
    chunk_decays = allocator.take<T>(chunk_count * padded<T>(args.decay_width));
    chunks = take_delta<T>(allocator, args, chunk_count);
    if (!args.has_delta_rule()) return;
    chunks.products = allocator.take<T>(chunk_count * kMaxChunk * kMaxChunk);
    chunks.grad_written = allocator.take<T>(kMaxChunk * width);
  }
};

/// Returns the arguments with `chunk` as the only resident chunk.
template <typename T>
LinearBackwardArgs with_resident_chunk(LinearBackwardArgs args, int64_t chunk,
                                       const HeadGradientScratch<T>& head_scratch) {
  const int64_t width = padded<T>(args.state_width());
  args.first_chunk = chunk;
  args.resident_chunks = 1;
  args.states.data = head_scratch.states + chunk * args.d * width;
  args.grad_states.data = head_scratch.grad_states;
  args.chunk_decays = head_scratch.chunk_decays + chunk * padded<T>(args.decay_width);
  args.delta = head_scratch.chunks;
  if (!args.has_delta_rule()) return args;
  args.delta.products = static_cast<T*>(head_scratch.chunks.products) + chunk * kMaxChunk * kMaxChunk;
  args.delta.written = static_cast<T*>(head_scratch.chunks.written) + chunk * kMaxChunk * width;
  return args;
}

/// Recomputes the state at the end of the resident chunk from the state at its start.
template <typename Element>
void recompute_state(const LinearArgs& args, const HeadGradientScratch<Compute<Element>>& head_scratch) {
  using T = Compute<Element>;
  const auto chunk = chunk_at(args, 0);
  const auto whole = whole_state<T>(args);
  if (args.has_delta_rule()) {
    const auto keys = prepare_delta<Element>(args, chunk, head_scratch.delta);
    return advance_delta<T>(args, chunk, whole, keys, head_scratch.delta);
  }
  add_to_state<Element>(args, chunk, head_scratch.gradients.forward.state);
  add_decayed_state<T>(args, args.states, whole, 0);
}

/// Computes the gradient of the state at the start of the resident chunk from the gradient of the state at
/// its end, and the gradients of the rows of the chunk.
template <typename Element>
void run_chunk_backward(const LinearBackwardArgs& args,
                        const HeadGradientScratch<Compute<Element>>& head_scratch) {
  using T = Compute<Element>;
  const auto& scratch = head_scratch.gradients;
  const auto chunk = chunk_at(args, 0);
  const auto whole = whole_state<T>(args);
  const auto rows = load_chunk<Element>(args, chunk, scratch);
  if (args.needs_grad_states()) {
    begin_grad_state<T>(args, chunk, rows.log, rows.query, rows.grad_read, scratch.start_factors,
                        scratch.forward.state.decayed);
  }
  if (args.needs_grad_delta()) {
    begin_grad_written<T>(args, chunk, scratch.forward.beta, scratch.forward.products, rows.grad_read);
    const auto keys =
        decay_keys<T>(args, chunk, rows.log, rows.key, scratch.start_factors, scratch.end_factors);
    advance_grad_delta<T>(args, chunk, whole, keys, head_scratch.delta);
  } else if (args.needs_grad_states()) {
    add_decayed_state<T>(args, args.grad_states, whole, 0);
  }
  chunk_gradients<T>(args, chunk, rows, scratch);
  write_gradients<T>(args, chunk, rows, scratch);
}

template <typename Element>
void head_backward(const LinearBackwardArgs& all_heads, int64_t head, void* memory) {
  using T = Compute<Element>;
  auto args = all_heads;
  args.first_head = head;
  ScratchAllocator allocator(memory);
  const HeadGradientScratch<T> head_scratch(allocator, args);
  const auto whole = whole_state<T>(args);
  load_block<T>(args, args.states.initial, whole, head_scratch.states);
  for (int64_t n = 0; n < args.chunks() && args.needs_states(); ++n)
    recompute_state<Element>(with_resident_chunk(args, n, head_scratch), head_scratch);
  const Rows<T> at_start{head_scratch.grad_states, whole.width};
  const Rows<T> at_end{head_scratch.grad_states + args.d * whole.width, whole.width};
  load_block<T>(args, args.grad_states.initial, whole, at_start.data);
  for (int64_t n = args.chunks() - 1; n >= 0; --n) {
    copy_matrix<T>(read_only(at_start), args.d, whole.width, at_end);
    run_chunk_backward<Element>(with_resident_chunk(args, n, head_scratch), head_scratch);
  }
  if (args.grad_states.final != nullptr) store_block<T>(args, at_start.data, whole, args.grad_states.final);
}

}  // namespace
}  // namespace attend::cpu
