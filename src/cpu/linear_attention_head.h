#pragma once

// The outputs of a head, chunk after chunk by one thread, so that what a chunk reads and adds stays in the
// nearest caches. Columns of the values don't depend on each other, so that a head can be several tasks.

#include "linear_attention_forward.h"

namespace attend::cpu {
namespace {

/// The state, and what the delta rule keeps of a chunk.
template <typename T>
struct HeadScratch {
  T *state, *factors;  ///< [d, padded state width], [d]
  T* chunk_decays;     ///< [padded decay width]
  DeltaChunks delta{};

  HeadScratch(Scratch& scratch, const LinearArgs& args) {
    const int64_t features = padded<T>(args.d), width = padded<T>(args.state_width());
    state = scratch.take<T>(args.d * width);
    factors = scratch.take<T>(args.d);
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

/// The arguments of a head of which these are all columns.
template <typename Element>
LinearForwardArgs of_columns(LinearForwardArgs args, const ValueColumns& columns) {
  const auto move = [&](Heads& tensor, int64_t size) {
    if (tensor.data != nullptr) tensor.data = static_cast<char*>(tensor.data) + columns.first * size;
  };
  move(args.value, sizeof(Element));
  move(args.output, sizeof(Element));
  move(args.unrounded, sizeof(Compute<Element>));
  args.d_v = columns.count;
  if (columns.first > 0) args.normaliser = nullptr;  // the first columns' task writes it
  return args;
}

/// to [d, padded width of the columns' state] = the initial state's columns, and its normaliser's.
template <typename T>
void load_initial(const LinearArgs& all, int64_t head, const ValueColumns& columns, T* to) {
  const int64_t stride = all.state_width(), width = padded<T>(columns.count + stride - all.d_v);
  fill(to, all.d * width, T{0});
  if (all.states.initial == nullptr) return;
  const T* from = static_cast<const T*>(all.states.initial) + head * all.d * stride;
  for (int64_t d = 0; d < all.d; ++d) {
    for (int64_t n = 0; n < columns.count; ++n) to[d * width + n] = from[d * stride + columns.first + n];
    if (all.normalize) to[d * width + columns.count] = from[d * stride + all.d_v];
  }
}

template <typename T>
void store_final(const LinearArgs& all, int64_t head, const ValueColumns& columns, const T* from) {
  const int64_t stride = all.state_width(), width = padded<T>(columns.count + stride - all.d_v);
  T* to = static_cast<T*>(all.states.final) + head * all.d * stride;
  for (int64_t d = 0; d < all.d; ++d) {
    for (int64_t n = 0; n < columns.count; ++n) to[d * stride + columns.first + n] = from[d * width + n];
    if (all.normalize && columns.first == 0) to[d * stride + all.d_v] = from[d * width + columns.count];
  }
}

/// What the chunk that is held writes, from the state at its start.
template <typename Element>
void write_chunk(const LinearArgs& args, const Compute<Element>* state, void* memory) {
  using T = Compute<Element>;
  prepare_delta<Element>(args, 0, memory);
  Scratch scratch(memory);
  const DeltaScratch<T> own(scratch, args);
  const StateBlock whole{0, 0, args.d, 0, padded<T>(args.state_width())};
  solve_chunk(args, chunk_at(args, 0), whole, state, own);
}

/// The keys of a chunk, decayed to its end; and the decay of all its steps.
template <typename T>
Rows<const T> keys_to_end(const LinearArgs& args, const Chunk& chunk, const ForwardRows<T>& rows,
                          const OutputScratch<T>& own) {
  if (args.has_delta_rule()) {  // which has told them already
    return read_only(delta_rows<T>(args, args.delta.to_end, chunk, padded<T>(args.d)));
  }
  if (rows.log.is_none()) return rows.key;
  decays_to_end<T>(rows.log, chunk.steps, own.state.factors);
  decay_of_chunk<T>(rows.log, chunk.steps, chunk_decay_of<T>(args, chunk));
  return decayed(rows.key, rows.log, own.state.factors, chunk.steps, padded<T>(args.d), own.state.decayed);
}

/// S = diag(decay of the chunk) S + (K decayed to the end)^T V
template <typename T>
void advance_state(const LinearArgs& args, const Chunk& chunk, Rows<const T> key, Rows<const T> value,
                   const HeadScratch<T>& head) {
  const Rows<T> state{head.state, padded<T>(args.state_width())};
  const Strided<T> columns{key.data, 1, key.stride};
  if (args.decay_width == 0) {
    return gemm<T, Update::add>(args.d, state.stride, chunk.steps, columns, value, state);
  }
  for (int64_t d = 0; d < args.d; ++d) head.factors[d] = head.chunk_decays[args.decay_width == 1 ? 0 : d];
  gemm<T, Update::scale_add>(args.d, state.stride, chunk.steps, columns, value, state, head.factors);
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

/// The outputs of the chunk that is held, and from the state at its start that at its end.
template <typename Element>
void pass_chunk(const LinearForwardArgs& args, const HeadScratch<Compute<Element>>& head, void* memory) {
  using T = Compute<Element>;
  if (args.has_delta_rule()) write_chunk<Element>(args, head.state, memory);
  Scratch scratch(memory);
  const OutputScratch<T> own(scratch, args);
  const auto chunk = chunk_at(args, 0);
  const auto rows = forward_rows<Element>(args, chunk, own);
  if (!chunk.queries.is_empty()) chunk_outputs<Element>(args, chunk, rows, head.state, own);
  look_ahead(args);
  const auto key = keys_to_end(args, chunk, rows, own);
  advance_state<T>(args, chunk, key, rows.value, head);
}

template <typename Element>
void outputs_of_head(const LinearForwardArgs& all, int64_t head, const ValueColumns& columns, void* memory) {
  auto args = of_columns<Element>(all, columns);
  Scratch scratch(memory);
  const HeadScratch<Compute<Element>> own(scratch, args);
  void* const of_chunk = static_cast<char*>(memory) + scratch.used();
  args.first_head = head;
  args.held_chunks = 1;
  args.chunk_decays = own.chunk_decays;
  args.delta = own.delta;
  load_initial(all, head, columns, own.state);
  for (args.first_chunk = 0; args.first_chunk < args.chunks(); ++args.first_chunk) {
    Ahead ahead = ahead_of<Element>(args);
    args.ahead = &ahead;
    pass_chunk<Element>(args, own, of_chunk);
  }
  store_final(all, head, columns, own.state);
}

}  // namespace
}  // namespace attend::cpu
