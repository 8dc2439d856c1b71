#pragma once

// The recurrence between chunks (Yang 2023, section 4). With the sums over the steps t of chunk n,
//
//     S_{n+1} = diag(decay of the chunk) S_n + sum_t (decay of the steps after t) k_t v_t^T
//     dS_n = diag(decay of the chunk) dS_{n+1} + sum_t (decay of the steps up to t) q_t dread_t^T
//
// where read_t = S_t^T q_t is the output before the scale and the normaliser.

#include "cpu/linear_attention/decay.h"

namespace attend::cpu {
namespace {

template <typename T>
struct StateScratch {
  T *log_decay, *factors;  ///< [kMaxChunk, padded decay width]
  T *features, *decayed;   ///< [kMaxChunk, padded d]
  T* values;               ///< [kMaxChunk, padded state width]

  StateScratch(ScratchAllocator& allocator, const LinearArgs& args) {
    log_decay = allocator.take<T>(kMaxChunk * padded<T>(args.decay_width));
    factors = allocator.take<T>(kMaxChunk * padded<T>(args.decay_width));
    features = allocator.take<T>(kMaxChunk * padded<T>(args.d));
    decayed = allocator.take<T>(kMaxChunk * padded<T>(args.d));
    values = allocator.take<T>(kMaxChunk * padded<T>(args.state_width()));
  }
};

/// Computes to [d, state width] = rows^T values.
template <typename T>
void outer_products(const LinearArgs& args, int64_t steps, Rows<const T> rows, Rows<const T> values, T* to) {
  const int64_t width = padded<T>(args.state_width());
  gemm_dots<T>(args.d, width, steps, {rows.data, 1, rows.stride}, values, {to, width});
}

/// Stores (K decayed to the end)^T V in place of the state at the end of the chunk.
template <typename Element>
void add_to_state(const LinearArgs& args, const Chunk& chunk, const StateScratch<Compute<Element>>& scratch) {
  using T = Compute<Element>;
  const auto log = log_decays<T>(args, chunk, scratch.log_decay);
  if (!log.is_none()) {
    decays_to_end<T>(log, chunk.steps, scratch.factors);
    chunk_decay<T>(log, chunk.steps, chunk_decay_at<T>(args, chunk));
  }
  const auto key = decayed<T>(key_rows<Element>(args, chunk, scratch.features), log, scratch.factors,
                              chunk.steps, padded<T>(args.d), scratch.decayed);
  outer_products<T>(args, chunk.steps, key, value_rows<Element>(args, chunk, scratch.values),
                    state_at<T>(args, args.states, chunk.slot, chunk.index + 1));
}

template <typename Element>
void add_to_state(const LinearArgs& args, int64_t task, void* memory) {
  using S = StateScratch<Compute<Element>>;
  run_chunk_task<S>(args, task, memory, [&](const Chunk& chunk, const S& scratch) {
    add_to_state<Element>(args, chunk, scratch);
  });
}

/// The rows and columns of the states of a resident head that a task computes.
struct StateBlock {
  int64_t slot;
  int64_t row, rows;
  int64_t column, width;  ///< whole vectors
};

/// Returns the block that is the whole state of the only resident head.
template <typename T>
StateBlock whole_state(const LinearArgs& args) {
  return {0, 0, args.d, 0, padded<T>(args.state_width())};
}

/// Returns a block of state n of the scan; with `from_end` the scan runs from the last chunk to the first.
template <typename T>
T* block_at(const LinearArgs& args, const States& states, const StateBlock& block, int64_t n) {
  return state_at<T>(args, states, block.slot, states.from_end ? args.resident_chunks - n : n) +
         block.row * padded<T>(args.state_width()) + block.column;
}

/// Returns the first element of the block in a tensor [B, H, d, state width].
template <typename T>
T* rows_of_state(const LinearArgs& args, T* tensor, const StateBlock& block) {
  return tensor + ((args.first_head + block.slot) * args.d + block.row) * args.state_width() + block.column;
}

/// Copies a block of a tensor [B, H, d, state width] to `to`; zeros if `tensor` is null.
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
void load_initial_state(const LinearArgs& args, const States& states, const StateBlock& block) {
  load_block<T>(args, states.initial, block, block_at<T>(args, states, block, 0));
}

template <typename T>
void store_final_state(const LinearArgs& args, const States& states, const StateBlock& block) {
  if (states.final == nullptr) return;
  store_block<T>(args, block_at<T>(args, states, block, args.resident_chunks), block, states.final);
}

/// Returns the decay of a row of the state, given the decay of a chunk; 1 without decays.
template <typename T>
T row_decay(const LinearArgs& args, const T* decay, int64_t row) {
  return args.decay_width == 0 ? T{1} : args.decay_width == 1 ? decay[0] : decay[row];
}

/// Adds diag(decay of the chunk) times state n of the scan to state n + 1.
template <typename T>
void add_decayed_state(const LinearArgs& args, const States& states, const StateBlock& block, int64_t n) {
  const int64_t chunk =
      block.slot * args.resident_chunks + (states.from_end ? args.resident_chunks - 1 - n : n);
  const T* decay = static_cast<const T*>(args.chunk_decays) + chunk * padded<T>(args.decay_width);
  const T* from = block_at<T>(args, states, block, n);
  T* to = block_at<T>(args, states, block, n + 1);
  const int64_t stride = padded<T>(args.state_width());
  for (int64_t row = 0; row < block.rows; ++row) {
    const T factor = row_decay(args, decay, block.row + row);
    for (int64_t w = 0; w < block.width; w += kLanes<T>) {
      const int64_t place = row * stride + w;
      store(to + place, load(to + place) + factor * load(from + place));
    }
  }
}

/// The number of rows of the states in a task of `scan_states`.
constexpr int64_t kRowBlock = 16;

inline int64_t row_blocks(const LinearArgs& args) { return divide_up(args.d, kRowBlock); }

template <typename T>
void scan_states(const LinearArgs& args, const States& states, int64_t task) {
  const int64_t row = task % row_blocks(args) * kRowBlock;
  const StateBlock block{task / row_blocks(args), row, smaller(kRowBlock, args.d - row), 0,
                         padded<T>(args.state_width())};
  load_initial_state<T>(args, states, block);
  for (int64_t n = 0; n < args.resident_chunks; ++n) add_decayed_state<T>(args, states, block, n);
  store_final_state<T>(args, states, block);
}

}  // namespace
}  // namespace attend::cpu
