#pragma once

// The gradients of a head, chunk after chunk by one thread: forwards for the states at the chunks' starts,
// then back. Between the two ways states, B and what was written are held of every chunk; all else stays in
// the nearest caches. The same bits as of the chunks at once.

#include "cpu/linear_attention/backward.h"

namespace attend::cpu {
namespace {

/// The chunk at hand, and what is held of all.
template <typename T>
struct HeadGradientScratch {
  GradientScratch<T> gradients;
  DeltaScratch<T> delta;
  T* states;           ///< [chunks + 1, d, padded state width]
  T* grad_states;      ///< [2, d, padded state width]: at the chunk's start and end
  T* chunk_decays;     ///< [chunks, padded decay width]
  DeltaChunks chunks;  ///< products and written of all chunks, the rest of one

  HeadGradientScratch(Scratch& scratch, const LinearArgs& args)
      : gradients(scratch, args), delta(scratch, args) {
    const int64_t width = padded<T>(args.state_width()), all = args.chunks();
    states = scratch.take<T>((all + 1) * args.d * width);
    grad_states = scratch.take<T>(2 * args.d * width);
    chunk_decays = scratch.take<T>(all * padded<T>(args.decay_width));
    chunks = take_delta<T>(scratch, args, all);
    if (!args.has_delta_rule()) return;
    chunks.products = scratch.take<T>(all * kChunk * kChunk);
    chunks.grad_written = scratch.take<T>(kChunk * width);
  }
};

template <typename Element>
int64_t head_backward_scratch(const LinearArgs& args) {
  Scratch scratch(nullptr);
  const HeadGradientScratch<Compute<Element>> own(scratch, args);
  return scratch.used();
}

/// The arguments where a chunk of the head is the only one that is held.
template <typename T>
LinearBackwardArgs of_chunk(LinearBackwardArgs args, int64_t chunk, const HeadGradientScratch<T>& held) {
  const int64_t width = padded<T>(args.state_width());
  args.first_chunk = chunk;
  args.held_chunks = 1;
  args.states.data = held.states + chunk * args.d * width;
  args.grad_states.data = held.grad_states;
  args.chunk_decays = held.chunk_decays + chunk * padded<T>(args.decay_width);
  args.delta = held.chunks;
  if (!args.has_delta_rule()) return args;
  args.delta.products = static_cast<T*>(held.chunks.products) + chunk * kChunk * kChunk;
  args.delta.written = static_cast<T*>(held.chunks.written) + chunk * kChunk * width;
  return args;
}

/// From the state at the chunk's start to that at its end.
template <typename Element>
void pass_state(const LinearArgs& args, const HeadGradientScratch<Compute<Element>>& held) {
  using T = Compute<Element>;
  const auto chunk = chunk_at(args, 0);
  const auto whole = whole_state<T>(args);
  if (args.has_delta_rule()) {
    const auto keys = prepare_delta<Element>(args, chunk, held.delta);
    return pass_delta<T>(args, chunk, whole, keys, held.delta);
  }
  add_to_state<Element>(args, chunk, held.gradients.forward.state);
  add_decayed_state<T>(args, args.states, whole, 0);
}

/// From the gradient of the state at the chunk's end to that at its start; and the gradients of its rows.
template <typename Element>
void pass_gradients(const LinearBackwardArgs& args, const HeadGradientScratch<Compute<Element>>& held) {
  using T = Compute<Element>;
  const auto& own = held.gradients;
  const auto chunk = chunk_at(args, 0);
  const auto whole = whole_state<T>(args);
  const auto rows = load_chunk<Element>(args, chunk, own);
  begin_grad_state<T>(args, chunk, rows.log, rows.query, rows.grad_read, own.start_factors,
                      own.forward.state.decayed);
  if (args.has_delta_rule()) {
    begin_grad_written<T>(args, chunk, own.forward.beta, own.forward.products, rows.grad_read);
    const auto keys = decay_keys<T>(args, chunk, rows.log, rows.key, own.start_factors, own.end_factors);
    pass_grad_delta<T>(args, chunk, whole, keys, held.delta);
  } else {
    add_decayed_state<T>(args, args.grad_states, whole, 0);
  }
  chunk_gradients<T>(args, chunk, rows, own);
  write_gradients<T>(args, chunk, rows, own);
}

template <typename Element>
void gradients_of_head(const LinearBackwardArgs& all, int64_t head, void* memory) {
  using T = Compute<Element>;
  auto args = all;
  args.first_head = head;
  Scratch scratch(memory);
  const HeadGradientScratch<T> held(scratch, args);
  const auto whole = whole_state<T>(args);
  load_block<T>(args, args.states.initial, whole, held.states);
  for (int64_t n = 0; n < args.chunks(); ++n) pass_state<Element>(of_chunk(args, n, held), held);
  const Rows<T> at_start{held.grad_states, whole.width};
  const Rows<T> at_end{held.grad_states + args.d * whole.width, whole.width};
  load_block<T>(args, args.grad_states.initial, whole, at_start.data);
  for (int64_t n = args.chunks() - 1; n >= 0; --n) {
    copy_matrix<T>(read_only(at_start), args.d, whole.width, at_end);
    pass_gradients<Element>(of_chunk(args, n, held), held);
  }
  store_block<T>(args, at_start.data, whole, args.grad_states.final);
}

}  // namespace
}  // namespace attend::cpu
