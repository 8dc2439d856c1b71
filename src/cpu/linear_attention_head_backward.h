#pragma once

// The gradients of a head, chunk after chunk by one thread, so that what a chunk reads and adds stays in the
// nearest caches: forwards for the states at the chunks' starts, then back. The same bits as of the chunks at
// once.

#include "linear_attention_backward.h"

namespace attend::cpu {
namespace {

/// What is held of a head, of each of its chunks, and of the chunk at hand.
template <typename T>
struct HeadGradientScratch {
  GradientScratch<T> gradients;
  DeltaScratch<T> delta;
  T* states;              ///< [chunks + 1, d, padded state width]
  T* grad_states;         ///< [2, d, padded state width]: at the chunk's start and end
  T* chunk_decays;        ///< [chunks, padded decay width]
  T *products, *written;  ///< [chunks, kChunk, ...], as in DeltaChunks
  T *from_start, *to_end, *system, *grad_written;  ///< [kChunk, ...], likewise

  HeadGradientScratch(Scratch& scratch, const LinearArgs& args)
      : gradients(scratch, args), delta(scratch, args) {
    const int64_t width = padded<T>(args.state_width()), chunks = args.chunks();
    states = scratch.take<T>((chunks + 1) * args.d * width);
    grad_states = scratch.take<T>(2 * args.d * width);
    chunk_decays = scratch.take<T>(chunks * padded<T>(args.decay_width));
    const int64_t steps = args.has_delta_rule() ? kChunk : 0;
    products = scratch.take<T>(chunks * steps * kChunk);
    written = scratch.take<T>(chunks * steps * width);
    const int64_t decayed = args.decay_width > 0 ? steps * padded<T>(args.d) : 0;
    from_start = scratch.take<T>(decayed);
    to_end = scratch.take<T>(decayed);
    system = scratch.take<T>(steps * kChunk);
    grad_written = scratch.take<T>(steps * width);
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
LinearBackwardArgs of_chunk(LinearBackwardArgs args, int64_t chunk, const HeadGradientScratch<T>& own) {
  const int64_t width = padded<T>(args.state_width());
  args.first_chunk = chunk;
  args.held_chunks = 1;
  args.states.data = own.states + chunk * args.d * width;
  args.grad_states.data = own.grad_states;
  args.chunk_decays = own.chunk_decays + chunk * padded<T>(args.decay_width);
  args.delta = {own.from_start,
                own.to_end,
                own.products + chunk * kChunk * kChunk,
                own.system,
                own.written + chunk * kChunk * width,
                own.grad_written};
  return args;
}

/// From the state at the chunk's start to that at its end.
template <typename Element>
void pass_state(const LinearArgs& args, const HeadGradientScratch<Compute<Element>>& own) {
  using T = Compute<Element>;
  const auto chunk = chunk_at(args, 0);
  const auto whole = whole_state<T>(args, 0);
  if (args.has_delta_rule()) {
    return pass_delta<T>(args, chunk, whole, 0, prepare_delta<Element>(args, chunk, own.delta), own.delta);
  }
  add_to_state<Element>(args, chunk, own.delta.state);
  add_decayed_state<T>(args, args.states, whole, 0);
}

/// From the gradient of the state at the chunk's end to that at its start; and the gradients of its rows.
template <typename Element>
void pass_gradients(const LinearBackwardArgs& args, const HeadGradientScratch<Compute<Element>>& held) {
  using T = Compute<Element>;
  const auto& own = held.gradients;
  const auto whole = whole_state<T>(args, 0);
  const auto chunk = chunk_at(args, 0);
  const auto rows = load_chunk<Element>(args, chunk, own);
  chunk_products<T>(args, chunk.steps, rows, own);
  begin_grad_state<T>(args, chunk, rows.log, rows.query, rows.grad_read, own.from_start,
                      own.forward.state.decayed);
  if (args.has_delta_rule()) {
    prepare_grad_system<T>(args, chunk, own.beta);
    const auto keys = decay_keys<T>(args, chunk, rows.log, rows.key, own.from_start, own.to_end);
    begin_grad_written<T>(args, chunk, own.forward.products, rows.grad_read);
    pass_grad_delta<T>(args, chunk, whole, 0, keys, held.delta);
  } else {
    add_decayed_state<T>(args, args.grad_states, whole, 0);
  }
  write_gradients<Element>(args, chunk, rows, own);
}

template <typename Element>
void gradients_of_head(const LinearBackwardArgs& all, int64_t head, void* memory) {
  using T = Compute<Element>;
  auto args = all;
  args.first_head = head;
  Scratch scratch(memory);
  const HeadGradientScratch<T> own(scratch, args);
  const auto whole = whole_state<T>(args, 0);
  const Rows<T> at_start{own.grad_states, whole.width},
      at_end{own.grad_states + args.d * whole.width, whole.width};
  auto before_chunks = of_chunk(args, 0, own);
  before_chunks.held_chunks = 0;
  begin_states<T>(before_chunks, before_chunks.states, whole);
  for (int64_t n = 0; n < args.chunks(); ++n) pass_state<Element>(of_chunk(args, n, own), own);
  begin_states<T>(before_chunks, before_chunks.grad_states, whole);
  for (int64_t n = args.chunks() - 1; n >= 0; --n) {
    copy_matrix<T>(read_only(at_start), args.d, whole.width, at_end);
    pass_gradients<Element>(of_chunk(args, n, own), own);
  }
  end_states<T>(before_chunks, before_chunks.grad_states, whole);
}

}  // namespace
}  // namespace attend::cpu
