#pragma once

// A chunk of steps of one head, and its rows in the form in which matrix products read them: queries and keys
// after the feature map, values with a column of ones for the normaliser.

#include "cpu/linear_attention/kernel.h"
#include "cpu/simd/exp.h"
#include "cpu/simd/rows.h"
#include "cpu/simd/scratch.h"
#include "cpu/simd/transpose.h"

namespace attend::cpu {
namespace {

struct Chunk {
  int64_t batch, head, kv_head;
  int64_t slot;         ///< the index of the head, counted from the first resident head
  int64_t index;        ///< the index of the chunk, counted from the first resident chunk
  int64_t step, steps;  ///< the first step, and the number of steps
  Range keys, queries;  ///< the steps of the chunk that have a key, or a query
};

/// Returns the part of the steps [first, last) of the sequence that lies in the chunk, relative to the first
/// step of the chunk.
inline Range steps_of(int64_t first, int64_t last, const Chunk& chunk) {
  const int64_t begin = first - chunk.step, end = last - chunk.step;
  return {begin < 0 ? 0 : begin, smaller(end, chunk.steps)};
}

/// Returns the chunk of a task of the parallel schedule.
inline Chunk chunk_at(const LinearArgs& args, int64_t task) {
  Chunk chunk{};
  chunk.slot = task / args.resident_chunks;
  const int64_t head = args.first_head + chunk.slot;
  chunk.batch = head / args.heads;
  chunk.head = head % args.heads;
  chunk.kv_head = chunk.head / (args.heads / args.kv_heads);
  chunk.index = task % args.resident_chunks;
  chunk.step = (args.first_chunk + chunk.index) * args.chunk_steps;
  chunk.steps = smaller(args.chunk_steps, args.steps() - chunk.step);
  const int64_t first_key = args.steps() - args.keys, first_query = args.steps() - args.queries;
  const int64_t keys = args.key_lengths == nullptr ? args.keys : args.key_lengths[chunk.batch];
  chunk.keys = steps_of(first_key, first_key + keys, chunk);
  chunk.queries = steps_of(first_query, args.steps(), chunk);
  return chunk;
}

/// Lays out the scratch memory S of a task of the parallel schedule and calls action(chunk, scratch).
template <typename S, typename Args, typename Action>
void run_chunk_task(const Args& args, int64_t task, void* memory, Action action) {
  ScratchAllocator allocator(memory);
  const S scratch(allocator, args);
  action(chunk_at(args, task), scratch);
}

/// Returns the row of a tensor at a step of the chunk. Row 0 of the tensor belongs to step `first_step` of
/// the sequence.
template <typename Element>
Element* row_at(const StridedTensor& tensor, int64_t head, const Chunk& chunk, int64_t step,
                int64_t first_step) {
  return row_of<Element>(tensor, chunk.batch, head, chunk.step + step - first_step);
}

inline int64_t first_key_step(const LinearArgs& args) { return args.steps() - args.keys; }
inline int64_t first_query_step(const LinearArgs& args) { return args.steps() - args.queries; }

/// Returns the state at the start of resident chunk `chunk` of the resident head `slot`.
template <typename T>
T* state_at(const LinearArgs& args, const States& states, int64_t slot, int64_t chunk) {
  return static_cast<T*>(states.data) +
         (slot * (args.resident_chunks + 1) + chunk) * args.d * padded<T>(args.state_width());
}

/// Returns the product of the decays of all steps of a chunk, [padded decay width].
template <typename T>
T* chunk_decay_at(const LinearArgs& args, const Chunk& chunk) {
  return static_cast<T*>(args.chunk_decays) +
         (chunk.slot * args.resident_chunks + chunk.index) * padded<T>(args.decay_width);
}

/// Prefetches the next few rows of the queue.
inline void prefetch_some(const LinearArgs& args) {
  constexpr int64_t kLine = 64, kRowsPerCall = 4;
  if (args.prefetch == nullptr) return;
  const int64_t begin = args.prefetch->row, end = begin + kRowsPerCall;
  for (const auto& part : args.prefetch->parts) {
    for (int64_t row = begin; row < smaller(end, part.rows); ++row) {
      const char* data = part.data + row * part.stride;
      for (int64_t byte = 0; byte < part.bytes; byte += kLine) __builtin_prefetch(data + byte, 0, 2);
    }
  }
  args.prefetch->row = end;
}

template <typename T>
void fill(T* to, int64_t count, T value) {
  for (int64_t n = 0; n < count; ++n) to[n] = value;
}

/// Copies rows of a chunk, converted to the compute type. Steps outside of `range`, which have no row, and
/// columns from `columns` on become zeros.
template <typename Element>
void copy_rows(const StridedTensor& tensor, int64_t head, const Chunk& chunk, Range range, int64_t first_step,
               int64_t columns, Compute<Element>* copy, int64_t width) {
  using T = Compute<Element>;
  if (range.is_empty()) return fill(copy, chunk.steps * width, T{0});
  fill(copy, range.begin * width, T{0});
  widen_rows(row_at<const Element>(tensor, head, chunk, range.begin, first_step), tensor.row_stride,
             range.end - range.begin, columns, copy + range.begin * width, width);
  fill(copy + range.end * width, (chunk.steps - range.end) * width, T{0});
}

/// Returns the rows of a chunk as `copy_rows` does, but without a copy where none is needed.
template <typename Element>
Rows<const Compute<Element>> chunk_rows(const StridedTensor& tensor, int64_t head, const Chunk& chunk,
                                        Range range, int64_t first_step, int64_t columns,
                                        Compute<Element>* copy) {
  using T = Compute<Element>;
  if (range.begin == 0 && range.end == chunk.steps) {
    const auto* from = row_at<const Element>(tensor, head, chunk, 0, first_step);
    return compute_rows(from, tensor.row_stride, chunk.steps, columns, copy);
  }
  copy_rows<Element>(tensor, head, chunk, range, first_step, columns, copy, padded<T>(columns));
  return {copy, padded<T>(columns)};
}

/// Returns relu(x), or elu(x) + 1.
template <typename T>
Vec<T> apply_feature_map(KernelFeatureMap map, Vec<T> x) {
  if (map == KernelFeatureMap::relu) return x <= 0 ? Vec<T>{} : x;  // a NaN stays
  return x > 0 ? x + 1 : exp(x);
}

/// Returns the derivative of the feature map at x, given phi, the feature of x.
template <typename T>
Vec<T> feature_map_derivative(KernelFeatureMap map, Vec<T> phi) {
  if (map == KernelFeatureMap::identity) return broadcast(T{1});
  if (map == KernelFeatureMap::relu) return phi <= 0 ? Vec<T>{} : broadcast(T{1});
  return phi > 1 ? broadcast(T{1}) : phi;
}

/// Returns the rows of queries or keys of a chunk after the feature map.
template <typename Element>
Rows<const Compute<Element>> feature_rows(const LinearArgs& args, const StridedTensor& tensor, int64_t head,
                                          const Chunk& chunk, Range range, int64_t first_step,
                                          Compute<Element>* copy) {
  using T = Compute<Element>;
  const int64_t width = padded<T>(args.d);
  const auto rows = chunk_rows<Element>(tensor, head, chunk, range, first_step, args.d, copy);
  if (args.feature_map == KernelFeatureMap::identity) return rows;
  for (int64_t t = range.begin; t < range.end; ++t) {
    for (int64_t d = 0; d < width; d += kLanes<T>) {
      store(copy + t * width + d,
            apply_feature_map<T>(args.feature_map, load(rows.data + t * rows.stride + d)));
    }
    for (int64_t d = args.d; d < width; ++d) copy[t * width + d] = 0;
  }
  return {copy, width};
}

template <typename Element>
Rows<const Compute<Element>> key_rows(const LinearArgs& args, const Chunk& chunk, Compute<Element>* copy) {
  return feature_rows<Element>(args, args.key, chunk.kv_head, chunk, chunk.keys, first_key_step(args), copy);
}

template <typename Element>
Rows<const Compute<Element>> query_rows(const LinearArgs& args, const Chunk& chunk, Compute<Element>* copy) {
  return feature_rows<Element>(args, args.query, chunk.head, chunk, chunk.queries, first_query_step(args),
                               copy);
}

/// Returns the values of a chunk, followed by a column of ones if there is a normaliser.
template <typename Element>
Rows<const Compute<Element>> value_rows(const LinearArgs& args, const Chunk& chunk, Compute<Element>* copy) {
  using T = Compute<Element>;
  if (!args.normalize) {
    return chunk_rows<Element>(args.value, chunk.kv_head, chunk, chunk.keys, first_key_step(args), args.d_v,
                               copy);
  }
  const int64_t width = padded<T>(args.state_width());
  copy_rows<Element>(args.value, chunk.kv_head, chunk, chunk.keys, first_key_step(args), args.d_v, copy,
                     width);
  for (int64_t t = chunk.keys.begin; t < chunk.keys.end; ++t) copy[t * width + args.d_v] = 1;
  return {copy, width};
}

/// Transposes `from` [rows, columns] into `to` [columns, to_stride]. Each row of `to` is filled with zeros up
/// to a whole vector.
template <typename T>
void transpose(Rows<const T> from, int64_t rows, int64_t columns, T* to, int64_t to_stride) {
  transpose_rows(from.data, from.stride, rows, columns, T{1}, to, to_stride);
  for (int64_t column = 0; column < columns; ++column) {
    for (int64_t row = rows; row < padded<T>(rows); ++row) to[column * to_stride + row] = 0;
  }
}

}  // namespace
}  // namespace attend::cpu
