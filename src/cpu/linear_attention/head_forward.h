#pragma once

// The outputs of a head, chunk after chunk by one thread, so that what a chunk reads and adds stays in the
// nearest caches. Columns of the values don't depend on each other, so that a head can be several tasks.
//
// Such chunks are short, and a state that were rounded after each would lose digits over a long sequence. So
// it is rounded after every kChunk steps, and between is put together anew for each chunk:
//
//     S = diag(decay since the base) base + added

#include "cpu/linear_attention/forward.h"

namespace attend::cpu {
namespace {

/// The state of a head on its way.
template <typename T>
struct HeadState {
  T *now, *base, *added;  ///< [d, padded state width]
  T *log_high, *log_low;  ///< of the decay since the base, an ExactSum; [padded decay width]
  T *decay, *factors;     ///< likewise, and [d]
  int64_t chunks = 0;     ///< since the base

  HeadState(Scratch& scratch, const LinearArgs& args) {
    const int64_t size = args.d * padded<T>(args.state_width()), decays = padded<T>(args.decay_width);
    now = scratch.take<T>(size);
    base = scratch.take<T>(size);
    added = scratch.take<T>(size);
    log_high = scratch.take<T>(decays);
    log_low = scratch.take<T>(decays);
    decay = scratch.take<T>(decays);
    factors = scratch.take<T>(args.d);
  }
};

/// The state, and what the delta rule keeps of a chunk.
template <typename T>
struct HeadScratch {
  HeadState<T> state;
  T* chunk_decays;  ///< [padded decay width]
  DeltaChunks delta;

  HeadScratch(Scratch& scratch, const LinearArgs& args) : state(scratch, args) {
    chunk_decays = scratch.take<T>(padded<T>(args.decay_width));
    delta = take_delta<T>(scratch, args, 1);
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
  Scratch scratch(memory);
  const DeltaScratch<T> own(scratch, args);
  const auto chunk = chunk_at(args, 0);
  const auto keys = prepare_delta<Element>(args, chunk, own);
  solve_chunk(args, chunk, whole_state<T>(args), keys.from_start, state, own);
}

/// The keys of a chunk, decayed to its end; and the decay of all its steps.
template <typename T>
Rows<const T> keys_to_end(const LinearArgs& args, const Chunk& chunk, const ForwardRows<T>& rows,
                          const OutputScratch<T>& own) {
  if (rows.log.is_none()) return rows.key;
  if (args.has_delta_rule()) return held_keys<T>(args, chunk).to_end;  // told already
  decays_to_end<T>(rows.log, chunk.steps, own.state.factors);
  decay_of_chunk<T>(rows.log, chunk.steps, chunk_decay_of<T>(args, chunk));
  return decayed(rows.key, rows.log, own.state.factors, chunk.steps, padded<T>(args.d), own.state.decayed);
}

/// A factor of each row of the state.
template <typename T>
void spread_decay(const LinearArgs& args, const T* decay, T* factors) {
  for (int64_t d = 0; d < args.d; ++d) factors[d] = decay[args.decay_width == 1 ? 0 : d];
}

/// added = diag(decay of the chunk) added + (K decayed to the end)^T V
template <typename T>
void add_chunk(const LinearArgs& args, const Chunk& chunk, Rows<const T> key, Rows<const T> value,
               const T* chunk_decay, const HeadState<T>& state) {
  const Rows<T> added{state.added, padded<T>(args.state_width())};
  const Strided<T> columns{key.data, 1, key.stride};
  if (state.chunks == 0) {
    gemm<T, Update::set>(args.d, added.stride, chunk.steps, columns, value, added);
  } else if (args.decay_width == 0) {
    gemm<T, Update::add>(args.d, added.stride, chunk.steps, columns, value, added);
  } else {
    spread_decay(args, chunk_decay, state.factors);
    gemm<T, Update::scale_add>(args.d, added.stride, chunk.steps, columns, value, added, state.factors);
  }
}

/// factors = the decay since the base, of a chunk more.
template <typename T>
void decay_base(const LinearArgs& args, const LogDecays<T>& log, int64_t steps, const HeadState<T>& state) {
  if (log.is_none()) return fill(state.factors, args.d, T{1});
  for_columns(log, [&]<typename V>(int64_t column) {
    ExactSum<T, V> sum;
    if (state.chunks > 0) sum = {load_as<V>(state.log_high + column), load_as<V>(state.log_low + column)};
    for (int64_t t = 0; t < steps; ++t) sum.add(load_as<V>(log.row(t) + column));
    store_as<T>(state.log_high + column, sum.high);
    store_as<T>(state.log_low + column, sum.low);
    store_as<T>(state.decay + column, sum.value());
  });
  exp_in_place(state.decay, log.width);
  spread_decay(args, state.decay, state.factors);
}

/// From the state at the chunk's start to that at its end.
template <typename T>
void advance_state(const LinearArgs& args, const Chunk& chunk, const LogDecays<T>& log, Rows<const T> key,
                   Rows<const T> value, const T* chunk_decay, HeadState<T>& state) {
  add_chunk(args, chunk, key, value, chunk_decay, state);
  decay_base(args, log, chunk.steps, state);
  const int64_t width = padded<T>(args.state_width());
  if (state.chunks == 0) {  // the last chunk's state is the base
    T* const last = state.base;
    state.base = state.now;
    state.now = last;
  }
  for (int64_t d = 0; d < args.d; ++d) {
    for (int64_t place = d * width; place < (d + 1) * width; place += kLanes<T>) {
      store(state.now + place, load(state.base + place) * state.factors[d] + load(state.added + place));
    }
  }
  state.chunks = (state.chunks + 1) % (kChunk / kHeadChunk);
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
void pass_chunk(const LinearForwardArgs& args, HeadScratch<Compute<Element>>& head, void* memory) {
  using T = Compute<Element>;
  if (args.has_delta_rule()) write_chunk<Element>(args, head.state.now, memory);
  Scratch scratch(memory);
  const OutputScratch<T> own(scratch, args);
  const auto chunk = chunk_at(args, 0);
  const auto rows = forward_rows<Element>(args, chunk, own);
  if (!chunk.queries.is_empty()) chunk_outputs<Element>(args, chunk, rows, head.state.now, own);
  look_ahead(args);
  const auto key = keys_to_end(args, chunk, rows, own);
  advance_state<T>(args, chunk, rows.log, key, rows.value, head.chunk_decays, head.state);
}

template <typename Element>
void outputs_of_head(const LinearForwardArgs& all, int64_t head, const ValueColumns& columns, void* memory) {
  auto args = of_columns<Element>(all, columns);
  Scratch scratch(memory);
  HeadScratch<Compute<Element>> own(scratch, args);
  void* const of_chunk = static_cast<char*>(memory) + scratch.used();
  args.first_head = head;
  args.held_chunks = 1;
  args.chunk_decays = own.chunk_decays;
  args.delta = own.delta;
  load_initial(all, head, columns, own.state.now);
  for (args.first_chunk = 0; args.first_chunk < args.chunks(); ++args.first_chunk) {
    Ahead ahead = ahead_of<Element>(args);
    args.ahead = &ahead;
    pass_chunk<Element>(args, own, of_chunk);
  }
  store_final<Compute<Element>>(all, head, columns, own.state.now);
}

}  // namespace
}  // namespace attend::cpu
