#pragma once

// The outputs of a head, chunk after chunk by one thread, so that what a chunk reads and adds stays in the
// nearest caches. Each is computed as for all chunks at once.

#include "linear_attention_forward.h"

namespace attend::cpu {
namespace {

/// The states of one chunk, and what the delta rule keeps of it.
template <typename T>
struct HeadScratch {
  T* states;        ///< at its start and end
  T* chunk_decays;  ///< [padded decay width]
  DeltaChunks delta{};

  HeadScratch(Scratch& scratch, const LinearArgs& args) {
    const int64_t features = padded<T>(args.d), width = padded<T>(args.state_width());
    states = scratch.take<T>(2 * args.d * width);
    chunk_decays = scratch.take<T>(padded<T>(args.decay_width));
    if (!args.has_delta_rule()) return;
    delta.from_start = scratch.take<T>(kChunk * features);
    delta.to_end = args.decay_width == 0 ? delta.from_start : scratch.take<T>(kChunk * features);
    delta.system = scratch.take<T>(kChunk * kChunk);
    delta.written = scratch.take<T>(kChunk * width);
  }
};

template <typename Element>
int64_t head_scratch(const LinearArgs& args) {
  Scratch scratch(nullptr);
  const HeadScratch<Compute<Element>> own(scratch, args);
  return scratch.used() + forward_scratch<Element>(args);
}

/// From the initial state to the final one, through the chunk that is held, if any.
template <typename Element>
void next_state(const LinearArgs& args, void* memory) {
  using T = Compute<Element>;
  if (args.has_delta_rule()) {
    if (args.held_chunks > 0) prepare_delta<Element>(args, 0, memory);
    for (int64_t block = 0; block < column_blocks<T>(args); ++block) delta_states<T>(args, block, memory);
    return;
  }
  if (args.held_chunks > 0) add_to_state<Element>(args, 0, memory);
  for (int64_t block = 0; block < row_blocks(args); ++block) join_states<T>(args, args.states, block);
}

/// The rows of a chunk in a tensor of the head's.
template <typename Element>
Ahead::Part part_ahead(const Heads& tensor, int64_t head, const Chunk& chunk, Range steps, int64_t first_step,
                       int64_t columns) {
  constexpr int64_t kSize = sizeof(Element);
  if (steps.is_empty()) return {};
  return {reinterpret_cast<const char*>(row_at<const Element>(tensor, head, chunk, steps.begin, first_step)),
          tensor.row_stride * kSize, columns * kSize, steps.end - steps.begin};
}

/// The outputs of the chunk at hand, and what the next one reads.
template <typename Element>
Ahead ahead_of(const LinearForwardArgs& args) {
  const auto chunk = chunk_at(args, 0);
  Ahead ahead{
      {part_ahead<Element>(args.output, chunk.head, chunk, chunk.queries, first_query_step(args), args.d_v)},
      0};
  if (args.first_chunk + 1 == args.chunks()) return ahead;
  LinearArgs later = args;
  ++later.first_chunk;
  const auto next = chunk_at(later, 0);
  ahead.parts[1] = part_ahead<Element>(args.key, next.kv_head, next, next.keys, first_key_step(args), args.d);
  ahead.parts[2] =
      part_ahead<Element>(args.value, next.kv_head, next, next.keys, first_key_step(args), args.d_v);
  ahead.parts[3] =
      part_ahead<Element>(args.query, next.head, next, next.queries, first_query_step(args), args.d);
  return ahead;
}

template <typename Element>
void outputs_of_head(const LinearForwardArgs& all, int64_t head, void* memory) {
  Scratch scratch(memory);
  const HeadScratch<Compute<Element>> own(scratch, all);
  void* const of_chunk = static_cast<char*>(memory) + scratch.used();
  LinearForwardArgs args = all;
  args.first_head = head;
  args.states.data = own.states;
  args.chunk_decays = own.chunk_decays;
  args.delta = own.delta;
  args.first_chunk = 0;
  do {
    args.held_chunks = smaller(1, args.chunks() - args.first_chunk);
    Ahead ahead = args.held_chunks > 0 ? ahead_of<Element>(args) : Ahead{};
    args.ahead = &ahead;
    next_state<Element>(args, of_chunk);
    if (args.held_chunks > 0 && args.queries > 0) outputs<Element>(args, 0, of_chunk);
    args.states.initial = args.states.final;
    ++args.first_chunk;
  } while (args.first_chunk < args.chunks());
}

}  // namespace
}  // namespace attend::cpu
