#pragma once

// From chunk to chunk: S_{n+1} = diag(decay of the chunk) S_n + sum over its steps of (decay to its end) k
// v^T, and back: dS_n = diag(decay of the chunk) dS_{n+1} + sum of (decay from its start) q dread^T.

#include "linear_attention_decay.h"

namespace attend::cpu {
namespace {

template <typename T>
struct StateScratch {
  T *log_decay, *factors;  ///< [kChunk, padded decay width]
  T *features, *decayed;   ///< [kChunk, padded d]
  T* values;               ///< [kChunk, padded state width]

  StateScratch(Scratch& scratch, const LinearArgs& args) {
    log_decay = scratch.take<T>(kChunk * padded<T>(args.decay_width));
    factors = scratch.take<T>(kChunk * padded<T>(args.decay_width));
    features = scratch.take<T>(kChunk * padded<T>(args.d));
    decayed = scratch.take<T>(kChunk * padded<T>(args.d));
    values = scratch.take<T>(kChunk * padded<T>(args.state_width()));
  }
};

/// to [d, state width] = rows^T values
template <typename T>
void outer_products(const LinearArgs& args, int64_t steps, Rows<const T> rows, Rows<const T> values, T* to) {
  const int64_t width = padded<T>(args.state_width());
  gemm<T, Update::set>(args.d, width, steps, {rows.data, 1, rows.stride}, values, {to, width});
}

template <typename Element>
void add_to_state(const LinearArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  Scratch scratch(memory);
  const StateScratch<T> own(scratch, args);
  const auto chunk = chunk_at(args, task);
  const auto log = log_decays<T>(args, chunk, own.log_decay);
  if (!log.is_none()) {
    decays_to_end<T>(log, chunk.steps, own.factors);
    decay_of_chunk<T>(log, chunk.steps, chunk_decay_of<T>(args, chunk));
  }
  const auto key = decayed<T>(key_rows<Element>(args, chunk, own.features), log, own.factors, chunk.steps,
                              padded<T>(args.d), own.decayed);
  outer_products<T>(args, chunk.steps, key, value_rows<Element>(args, chunk, own.values),
                    state_at<T>(args, args.states, chunk.slot, chunk.index + 1));
}

/// Rows of a state that a task puts together.
constexpr int64_t kRowBlock = 16;

inline int64_t row_blocks(const LinearArgs& args) { return divide_up(args.d, kRowBlock); }

/// Rows of [B, H, d, state width].
template <typename T>
T* rows_of_state(const LinearArgs& args, T* tensor, int64_t slot, int64_t row) {
  return tensor + ((args.first_head + slot) * args.d + row) * args.state_width();
}

/// to += diag(decay) from
template <typename T>
void decay_and_add(const LinearArgs& args, const T* decay, const T* from, int64_t rows, T* to) {
  const int64_t width = padded<T>(args.state_width());
  for (int64_t row = 0; row < rows; ++row) {
    const T factor = args.decay_width == 0 ? T{1} : args.decay_width == 1 ? decay[0] : decay[row];
    for (int64_t w = 0; w < width; w += kLanes<T>) {
      const int64_t place = row * width + w;
      store(to + place, load(to + place) + factor * load(from + place));
    }
  }
}

template <typename T>
void join_states(const LinearArgs& args, const States& states, int64_t task) {
  const int64_t slot = task / row_blocks(args), row = task % row_blocks(args) * kRowBlock;
  const int64_t rows = smaller(kRowBlock, args.d - row), chunks = args.chunks();
  const int64_t columns = args.state_width(), width = padded<T>(columns);
  const auto block_at = [&](int64_t n) {
    return state_at<T>(args, states, slot, states.from_end ? chunks - n : n) + row * width;
  };
  if (states.initial == nullptr) {
    fill(block_at(0), rows * width, T{0});
  } else {
    widen_rows(rows_of_state(args, static_cast<const T*>(states.initial), slot, row), columns, rows, columns,
               block_at(0), width);
  }
  const auto* decays = static_cast<const T*>(args.chunk_decays);
  const int64_t stride = padded<T>(args.decay_width), offset = args.decay_width > 1 ? row : 0;
  for (int64_t n = 0; n < chunks; ++n) {
    const int64_t chunk = slot * chunks + (states.from_end ? chunks - 1 - n : n);
    const T* decay = args.decay_width == 0 ? nullptr : decays + chunk * stride + offset;
    decay_and_add<T>(args, decay, block_at(n), rows, block_at(n + 1));
  }
  if (states.final == nullptr) return;
  T* to = rows_of_state(args, static_cast<T*>(states.final), slot, row);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t w = 0; w < columns; ++w) to[r * columns + w] = block_at(chunks)[r * width + w];
  }
}

}  // namespace
}  // namespace attend::cpu
