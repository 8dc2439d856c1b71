#pragma once

// The sequential forward of a head: it goes from chunk to chunk with the state in the first-level caches.
// Columns of the values are independent of each other, so that a head can be divided into several tasks.
//
// The chunks are short. If the state were rounded after each chunk, a long sequence would accumulate rounding
// errors. Therefore a base state is stored every kMaxChunk steps, and the states in between are computed from
// it:
//
//     S = diag(decay since the base) base + added

#include "cpu/linear_attention/chunk_forward.h"

namespace attend::cpu {
namespace {

/// The running state of a head.
template <typename T>
struct HeadState {
  T *now, *base, *added;  ///< [d, padded state width]
  T *log_high, *log_low;  ///< the log decay since the base, as a CompensatedSum; [padded decay width]
  T *decay, *factors;     ///< the decay since the base, [padded decay width]; one factor per row, [d]
  int64_t chunks = 0;     ///< the number of chunks since the base

  HeadState(ScratchAllocator& allocator, const LinearArgs& args) {
    const int64_t size = args.d * padded<T>(args.state_width()), decays = padded<T>(args.decay_width);
    now = allocator.take<T>(size);
    base = allocator.take<T>(size);
    added = allocator.take<T>(size);
    log_high = allocator.take<T>(decays);
    log_low = allocator.take<T>(decays);
    decay = allocator.take<T>(decays);
    factors = allocator.take<T>(args.d);
  }
};

/// The running state, and the buffers of one chunk.
template <typename T>
struct HeadScratch {
  HeadState<T> state;
  T* chunk_decays;  ///< [padded decay width]
  DeltaChunks delta;

  HeadScratch(ScratchAllocator& allocator, const LinearArgs& args) : state(allocator, args) {
    chunk_decays = allocator.take<T>(padded<T>(args.decay_width));
    delta = take_delta<T>(allocator, args, 1);
  }
};

template <typename Element>
int64_t head_forward_scratch_bytes(const LinearArgs& args) {
  return scratch_bytes<HeadScratch<Compute<Element>>>(args) + forward_scratch_bytes<Element>(args);
}

/// Returns the arguments restricted to some columns of the values.
template <typename Element>
LinearForwardArgs restrict_to_columns(LinearForwardArgs args, const ValueColumns& columns) {
  const auto move = [&](StridedTensor& tensor, int64_t size) {
    if (tensor.data != nullptr) tensor.data = static_cast<char*>(tensor.data) + columns.first * size;
  };
  move(args.value, sizeof(Element));
  move(args.output, sizeof(Element));
  move(args.unrounded, sizeof(Compute<Element>));
  args.d_v = columns.count;
  if (columns.first > 0) args.normaliser = nullptr;  // written by the task of the first columns
  return args;
}

/// Copies some columns of the initial state, and its normaliser, to `to` [d, padded width of these columns].
template <typename T>
void load_initial(const LinearArgs& all_columns, int64_t head, const ValueColumns& columns, T* to) {
  const int64_t stride = all_columns.state_width(),
                width = padded<T>(columns.count + stride - all_columns.d_v);
  fill(to, all_columns.d * width, T{0});
  if (all_columns.states.initial == nullptr) return;
  const T* from = static_cast<const T*>(all_columns.states.initial) + head * all_columns.d * stride;
  for (int64_t d = 0; d < all_columns.d; ++d) {
    for (int64_t n = 0; n < columns.count; ++n) to[d * width + n] = from[d * stride + columns.first + n];
    if (all_columns.normalize) to[d * width + columns.count] = from[d * stride + all_columns.d_v];
  }
}

/// Stores some columns of the final state. The task of the first columns also stores the normaliser.
template <typename T>
void store_final(const LinearArgs& all_columns, int64_t head, const ValueColumns& columns, const T* from) {
  const int64_t stride = all_columns.state_width(),
                width = padded<T>(columns.count + stride - all_columns.d_v);
  T* to = static_cast<T*>(all_columns.states.final) + head * all_columns.d * stride;
  for (int64_t d = 0; d < all_columns.d; ++d) {
    for (int64_t n = 0; n < columns.count; ++n) to[d * stride + columns.first + n] = from[d * width + n];
    if (all_columns.normalize && columns.first == 0)
      to[d * stride + all_columns.d_v] = from[d * width + columns.count];
  }
}

/// Computes Z of the resident chunk from the state at the start of the chunk.
template <typename Element>
void write_chunk(const LinearArgs& args, const Compute<Element>* state, void* memory) {
  using T = Compute<Element>;
  ScratchAllocator allocator(memory);
  const DeltaScratch<T> scratch(allocator, args);
  const auto chunk = chunk_at(args, 0);
  const auto keys = prepare_delta<Element>(args, chunk, scratch);
  solve_chunk(args, chunk, whole_state<T>(args), keys.from_start, state, scratch);
}

/// Returns the keys of a chunk, decayed to its end. Also computes the decay of the chunk.
template <typename T>
Rows<const T> keys_to_end(const LinearArgs& args, const Chunk& chunk, const ForwardRows<T>& rows,
                          const OutputScratch<T>& scratch) {
  if (rows.log.is_none()) return rows.key;
  if (args.has_delta_rule()) return decayed_keys<T>(args, chunk).to_end;  // computed by prepare_delta
  decays_to_end<T>(rows.log, chunk.steps, scratch.state.factors);
  chunk_decay<T>(rows.log, chunk.steps, chunk_decay_at<T>(args, chunk));
  return decayed(rows.key, rows.log, scratch.state.factors, chunk.steps, padded<T>(args.d),
                 scratch.state.decayed);
}

/// Computes the decay of each row of the state, [d].
template <typename T>
void fill_row_decays(const LinearArgs& args, const T* decay, T* factors) {
  for (int64_t d = 0; d < args.d; ++d) factors[d] = row_decay(args, decay, d);
}

/// Computes added = diag(decay of the chunk) added + (K decayed to the end)^T V.
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
    fill_row_decays(args, chunk_decay, state.factors);
    gemm<T, Update::scale_add>(args.d, added.stride, chunk.steps, columns, value, added, state.factors);
  }
}

/// Sets state.factors to the decay since the base, including the current chunk.
template <typename T>
void decay_base(const LinearArgs& args, const LogDecays<T>& log, int64_t steps, const HeadState<T>& state) {
  if (log.is_none()) return fill(state.factors, args.d, T{1});
  for_columns(log, [&]<typename V>(int64_t column) {
    CompensatedSum<T, V> sum;
    if (state.chunks > 0) sum = {load_as<V>(state.log_high + column), load_as<V>(state.log_low + column)};
    for (int64_t t = 0; t < steps; ++t) sum.add(load_as<V>(log.row(t) + column));
    store_as<T>(state.log_high + column, sum.high);
    store_as<T>(state.log_low + column, sum.low);
    store_as<T>(state.decay + column, sum.value());
  });
  exp_in_place(state.decay, log.width);
  fill_row_decays(args, state.decay, state.factors);
}

/// Computes the state at the end of a chunk from the state at its start.
template <typename T>
void advance_state(const LinearArgs& args, const Chunk& chunk, const LogDecays<T>& log, Rows<const T> key,
                   Rows<const T> value, const T* chunk_decay, HeadState<T>& state) {
  add_chunk(args, chunk, key, value, chunk_decay, state);
  decay_base(args, log, chunk.steps, state);
  const int64_t width = padded<T>(args.state_width());
  if (state.chunks == 0) {  // the state at the start of the chunk becomes the base
    T* const last = state.base;
    state.base = state.now;
    state.now = last;
  }
  for (int64_t d = 0; d < args.d; ++d) {
    for (int64_t place = d * width; place < (d + 1) * width; place += kLanes<T>) {
      store(state.now + place, load(state.base + place) * state.factors[d] + load(state.added + place));
    }
  }
  state.chunks = (state.chunks + 1) % (kMaxChunk / kSequentialChunk);
}

/// Returns the rows of a tensor that belong to a chunk, as an entry of the prefetch queue.
template <typename Element>
PrefetchQueue::Part rows_to_prefetch(const StridedTensor& tensor, int64_t head, const Chunk& chunk,
                                     Range steps, int64_t first_step, int64_t columns) {
  constexpr int64_t kSize = sizeof(Element);
  if (steps.is_empty()) return {};
  return {reinterpret_cast<const char*>(row_at<const Element>(tensor, head, chunk, steps.begin, first_step)),
          tensor.row_stride * kSize, columns * kSize, steps.end - steps.begin};
}

/// Returns the rows to be prefetched during a chunk: its outputs, and the queries, keys and values of the
/// next chunk.
template <typename Element>
PrefetchQueue prefetch_queue(const LinearForwardArgs& args) {
  const auto chunk = chunk_at(args, 0);
  PrefetchQueue prefetch{{rows_to_prefetch<Element>(args.output, chunk.head, chunk, chunk.queries,
                                                    first_query_step(args), args.d_v)},
                         0};
  if (args.first_chunk + 1 == args.chunks()) return prefetch;
  LinearArgs later = args;
  ++later.first_chunk;
  const auto next = chunk_at(later, 0);
  prefetch.parts[1] =
      rows_to_prefetch<Element>(args.key, next.kv_head, next, next.keys, first_key_step(args), args.d);
  prefetch.parts[2] =
      rows_to_prefetch<Element>(args.value, next.kv_head, next, next.keys, first_key_step(args), args.d_v);
  prefetch.parts[3] =
      rows_to_prefetch<Element>(args.query, next.head, next, next.queries, first_query_step(args), args.d);
  return prefetch;
}

/// Computes the outputs of the resident chunk, and the state at the end of the chunk.
template <typename Element>
void run_chunk(const LinearForwardArgs& args, HeadScratch<Compute<Element>>& head, void* memory) {
  using T = Compute<Element>;
  if (args.has_delta_rule()) write_chunk<Element>(args, head.state.now, memory);
  ScratchAllocator allocator(memory);
  const OutputScratch<T> scratch(allocator, args);
  const auto chunk = chunk_at(args, 0);
  const auto rows = forward_rows<Element>(args, chunk, scratch);
  if (!chunk.queries.is_empty()) chunk_outputs<Element>(args, chunk, rows, head.state.now, scratch);
  prefetch_some(args);
  const auto key = keys_to_end(args, chunk, rows, scratch);
  advance_state<T>(args, chunk, rows.log, key, rows.value, head.chunk_decays, head.state);
}

template <typename Element>
void head_forward(const LinearForwardArgs& all_columns, int64_t head, const ValueColumns& columns,
                  void* memory) {
  auto args = restrict_to_columns<Element>(all_columns, columns);
  ScratchAllocator allocator(memory);
  HeadScratch<Compute<Element>> scratch(allocator, args);
  void* const chunk_memory = static_cast<char*>(memory) + allocator.used();
  args.first_head = head;
  args.resident_chunks = 1;
  args.chunk_decays = scratch.chunk_decays;
  args.delta = scratch.delta;
  load_initial(all_columns, head, columns, scratch.state.now);
  for (args.first_chunk = 0; args.first_chunk < args.chunks(); ++args.first_chunk) {
    PrefetchQueue prefetch = prefetch_queue<Element>(args);
    args.prefetch = &prefetch;
    run_chunk<Element>(args, scratch, chunk_memory);
  }
  store_final<Compute<Element>>(all_columns, head, columns, scratch.state.now);
}

}  // namespace
}  // namespace attend::cpu
