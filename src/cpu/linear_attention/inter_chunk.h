#pragma once

// From chunk to chunk: S_{n+1} = diag(decay of the chunk) S_n + sum over its steps of (decay to its end) k
// v^T, and back: dS_n = diag(decay of the chunk) dS_{n+1} + sum of (decay from its start) q dread^T.

#include "cpu/linear_attention/decay.h"

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
  gemm_dots<T>(args.d, width, steps, {rows.data, 1, rows.stride}, values, {to, width});
}

/// (K decayed to the end)^T V, into the state after the chunk.
template <typename Element>
void add_to_state(const LinearArgs& args, const Chunk& chunk, const StateScratch<Compute<Element>>& own) {
  using T = Compute<Element>;
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

template <typename Element>
void add_to_state(const LinearArgs& args, int64_t task, void* memory) {
  Scratch scratch(memory);
  add_to_state<Element>(args, chunk_at(args, task), {scratch, args});
}

/// The part of a head's states that a task puts together.
struct StateBlock {
  int64_t slot;
  int64_t row, rows;
  int64_t column, width;  ///< of whole vectors
};

/// Of a head by itself.
template <typename T>
StateBlock whole_state(const LinearArgs& args) {
  return {0, 0, args.d, 0, padded<T>(args.state_width())};
}

/// At step n of the way from the first to the last, which is the first chunk's where gradients are meant.
template <typename T>
T* block_at(const LinearArgs& args, const States& states, const StateBlock& block, int64_t n) {
  return state_at<T>(args, states, block.slot, states.from_end ? args.held_chunks - n : n) +
         block.row * padded<T>(args.state_width()) + block.column;
}

/// The same part of [B, H, d, state width].
template <typename T>
T* rows_of_state(const LinearArgs& args, T* tensor, const StateBlock& block) {
  return tensor + ((args.first_head + block.slot) * args.d + block.row) * args.state_width() + block.column;
}

/// A block from [B, H, d, state width], zeros where that is null.
template <typename T>
void load_block(const LinearArgs& args, const void* tensor, const StateBlock& block, T* to) {
  const int64_t columns = tensor == nullptr ? 0 : smaller(block.width, args.state_width() - block.column);
  const T* from = columns == 0 ? nullptr : rows_of_state(args, static_cast<const T*>(tensor), block);
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t w = 0; w < columns; ++w) to[w] = from[row * args.state_width() + w];
    for (int64_t w = columns; w < block.width; ++w) to[w] = 0;
    to += padded<T>(args.state_width());
  }
}

template <typename T>
void store_block(const LinearArgs& args, const T* from, const StateBlock& block, void* tensor) {
  const int64_t columns = smaller(block.width, args.state_width() - block.column);
  T* to = rows_of_state(args, static_cast<T*>(tensor), block);
  for (int64_t row = 0; row < block.rows; ++row) {
    for (int64_t w = 0; w < columns; ++w) to[row * args.state_width() + w] = from[w];
    from += padded<T>(args.state_width());
  }
}

template <typename T>
void begin_states(const LinearArgs& args, const States& states, const StateBlock& block) {
  load_block<T>(args, states.initial, block, block_at<T>(args, states, block, 0));
}

template <typename T>
void end_states(const LinearArgs& args, const States& states, const StateBlock& block) {
  if (states.final == nullptr) return;
  store_block<T>(args, block_at<T>(args, states, block, args.held_chunks), block, states.final);
}

/// What there is at n + 1 already, and diag(decay of the chunk between) times what is at n.
template <typename T>
void add_decayed_state(const LinearArgs& args, const States& states, const StateBlock& block, int64_t n) {
  const int64_t chunk = block.slot * args.held_chunks + (states.from_end ? args.held_chunks - 1 - n : n);
  const T* decay = static_cast<const T*>(args.chunk_decays) + chunk * padded<T>(args.decay_width);
  const T* from = block_at<T>(args, states, block, n);
  T* to = block_at<T>(args, states, block, n + 1);
  const int64_t stride = padded<T>(args.state_width());
  for (int64_t row = 0; row < block.rows; ++row) {
    const T factor = args.decay_width == 0 ? T{1} : args.decay_width == 1 ? decay[0] : decay[block.row + row];
    for (int64_t w = 0; w < block.width; w += kLanes<T>) {
      const int64_t place = row * stride + w;
      store(to + place, load(to + place) + factor * load(from + place));
    }
  }
}

/// Rows of the block of a task.
constexpr int64_t kRowBlock = 16;

inline int64_t row_blocks(const LinearArgs& args) { return divide_up(args.d, kRowBlock); }

template <typename T>
void join_states(const LinearArgs& args, const States& states, int64_t task) {
  const int64_t row = task % row_blocks(args) * kRowBlock;
  const StateBlock block{task / row_blocks(args), row, smaller(kRowBlock, args.d - row), 0,
                         padded<T>(args.state_width())};
  begin_states<T>(args, states, block);
  for (int64_t n = 0; n < args.held_chunks; ++n) add_decayed_state<T>(args, states, block, n);
  end_states<T>(args, states, block);
}

}  // namespace
}  // namespace attend::cpu
