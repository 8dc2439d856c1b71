#pragma once

// The delta rule in chunks (the WY form of its transitions: Yang 2024, section 3.2; with decays Yang & Kautz
// 2024, Kimi Team 2025). Within a chunk, step s writes the value u_s = beta_s z_s, so that everything else is
// as if there were no delta rule and the values were u. z_t is the value less what the state knows of the
// key:
//
//     z_t = v_t - S_0^T (k_t decayed from the start) - sum over s < t of B_ts beta_s z_s
//     B_ts = k_t (decay of the steps after s up to t) k_s
//
//     Z = (I + B diag(beta))^-1 (V - (K decayed) S_0),   B strictly lower triangular
//
// The normaliser sums up keys, as if without the delta rule: its column of ones is left as it is.

#include "cpu/linear_attention/inter_chunk.h"
#include "cpu/linear_attention/intra_chunk.h"

namespace attend::cpu {
namespace {

/// Rows of a triangular system that are solved at once.
constexpr int64_t kSolveBlock = 16;

template <typename T>
struct DeltaScratch {
  StateScratch<T> state;
  ProductScratch<T> product;
  T* end_factors;         ///< [kChunk, padded decay width]
  T* beta;                ///< [kChunk]
  T *values, *strengths;  ///< [kChunk, padded state width]

  DeltaScratch(Scratch& scratch, const LinearArgs& args)
      : state(scratch, args), product(scratch, args.d, args.decay_width) {
    end_factors = scratch.take<T>(kChunk * padded<T>(args.decay_width));
    beta = scratch.take<T>(kChunk);
    values = scratch.take<T>(kChunk * padded<T>(args.state_width()));
    strengths = scratch.take<T>(kChunk * padded<T>(args.state_width()));
  }
};

/// The part of a buffer of `DeltaChunks`, of rows of `width`, that is a chunk's.
template <typename T>
Rows<T> delta_rows(const LinearArgs& args, void* buffer, const Chunk& chunk, int64_t width) {
  return {static_cast<T*>(buffer) + (chunk.slot * args.held_chunks + chunk.index) * kChunk * width, width};
}

/// Memory for a head by itself: for one chunk, and for what `chunks` of them write.
template <typename T>
DeltaChunks take_delta(Scratch& scratch, const LinearArgs& args, int64_t chunks) {
  DeltaChunks delta{};
  if (!args.has_delta_rule()) return delta;
  const int64_t decayed = args.decay_width > 0 ? kChunk * padded<T>(args.d) : 0;
  delta.from_start = scratch.take<T>(decayed);
  delta.to_end = scratch.take<T>(decayed);
  delta.system = scratch.take<T>(kChunk * kChunk);
  delta.written = scratch.take<T>(chunks * kChunk * padded<T>(args.state_width()));
  return delta;
}

template <typename T>
Rows<const T> read_only(Rows<T> rows) {
  return {rows.data, rows.stride};
}

template <typename T>
const T* write_strengths(const LinearArgs& args, const Chunk& chunk, T* copy) {
  copy_rows<T>(args.beta, chunk.head, chunk, chunk.keys, first_key_step(args), 1, copy, 1);
  return copy;
}

/// Makes the blocks on the diagonal of I - N, for strictly lower triangular N, their inverses: so a system is
/// solved block by block. Zeros above the diagonal of each. The blocks' rows in turn: they don't wait for
/// each other.
template <typename T>
void invert_diagonal_blocks(int64_t n, Rows<T> system) {
  constexpr int64_t kVectors = kSolveBlock / kLanes<T>;
  for (int64_t step = 0; step < smaller(kSolveBlock, n); ++step) {
    for (int64_t first = 0; first + step < n; first += kSolveBlock) {
      T* row = system.data + (first + step) * system.stride + first;
      Vec<T> sums[kVectors] = {};  // X_t = e_t + sum over s < t of N_ts X_s
      for (int64_t s = 0; s < step; ++s) {
        for (int64_t v = 0; v < kVectors; ++v) {
          sums[v] += row[s] * load(system.data + (first + s) * system.stride + first + v * kLanes<T>);
        }
      }
      for (int64_t v = 0; v < kVectors; ++v) store(row + v * kLanes<T>, sums[v]);
      row[step] = 1;
    }
  }
}

/// The solution X [n, columns] of (I - N) X = R, whose diagonal blocks are inverted; changes R.
template <typename T>
void solve_lower(int64_t n, int64_t columns, Rows<const T> system, Rows<T> r, Rows<T> x) {
  for (int64_t first = 0; first < n; first += kSolveBlock) {
    const int64_t rows = smaller(kSolveBlock, n - first);
    const Rows<T> right{r.data + first * r.stride, r.stride};
    const T* left = system.data + first * system.stride;
    gemm_dots<T, Update::add>(rows, columns, first, {left, system.stride, 1}, read_only(x), right);
    gemm_dots<T>(rows, columns, rows, {left + first, system.stride, 1}, read_only(right),
                 {x.data + first * x.stride, x.stride});
  }
}

/// The same of (I - N)^T X = R.
template <typename T>
void solve_lower_transposed(int64_t n, int64_t columns, Rows<const T> system, Rows<T> r, Rows<T> x) {
  for (int64_t end = n; end > 0; end = (end - 1) / kSolveBlock * kSolveBlock) {
    const int64_t first = (end - 1) / kSolveBlock * kSolveBlock;
    const Rows<T> right{r.data + first * r.stride, r.stride};
    const T* above = system.data + end * system.stride + first;
    gemm_dots<T, Update::add>(end - first, columns, n - end, {above, 1, system.stride},
                              {x.data + end * x.stride, x.stride}, right);
    gemm_dots<T>(end - first, columns, end - first,
                 {system.data + first * system.stride + first, 1, system.stride}, read_only(right),
                 {x.data + first * x.stride, x.stride});
  }
}

/// Makes I + B diag(beta), or for the backward I + diag(beta) B, ready to be solved, in place of B or not.
/// Vectors reach past the diagonal, but not out of its block, which the inversion writes anew.
template <typename T>
void prepare_system(int64_t n, bool for_backward, const T* beta, Rows<const T> b, Rows<T> system) {
  static_assert(kSolveBlock % kLanes<T> == 0);
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t s = 0; s < t; s += kLanes<T>) {
      const auto strength = for_backward ? all(beta[t]) : load(beta + s);
      store(system.data + t * system.stride + s, -strength * load(b.data + t * b.stride + s));
    }
  }
  invert_diagonal_blocks<T>(n, system);
}

template <typename T>
void copy_matrix(Rows<const T> from, int64_t rows, int64_t width, Rows<T> to) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      store(to.data + row * to.stride + c, load(from.data + row * from.stride + c));
    }
  }
}

/// The keys of a chunk, decayed from its start and to its end.
template <typename T>
struct DecayedKeys {
  Rows<const T> from_start, to_end;
};

/// B of a chunk.
template <typename T>
Rows<T> held_products(const LinearArgs& args, const Chunk& chunk) {
  return delta_rows<T>(args, args.delta.products, chunk, kChunk);
}

/// Where the decayed keys of a chunk are held.
template <typename T>
DecayedKeys<T> held_keys(const LinearArgs& args, const Chunk& chunk) {
  return {read_only(delta_rows<T>(args, args.delta.from_start, chunk, padded<T>(args.d))),
          read_only(delta_rows<T>(args, args.delta.to_end, chunk, padded<T>(args.d)))};
}

/// Held where there are decays, by these factors; else the keys where they are.
template <typename T>
DecayedKeys<T> decay_keys(const LinearArgs& args, const Chunk& chunk, const LogDecays<T>& log,
                          Rows<const T> key, const T* start_factors, const T* end_factors) {
  const int64_t n = chunk.steps, features = padded<T>(args.d);
  const auto held = [&](void* buffer) { return delta_rows<T>(args, buffer, chunk, features).data; };
  return {decayed<T>(key, log, start_factors, n, features, held(args.delta.from_start)),
          decayed<T>(key, log, end_factors, n, features, held(args.delta.to_end))};
}

/// What can be told of a chunk before the state at its start is known: the decayed keys, the system,
/// and the values in the place of what will be written.
template <typename Element>
DecayedKeys<Compute<Element>> prepare_delta(const LinearArgs& args, const Chunk& chunk,
                                            const DeltaScratch<Compute<Element>>& own) {
  using T = Compute<Element>;
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto log = log_decays<T>(args, chunk, own.state.log_decay);
  const auto key = key_rows<Element>(args, chunk, own.state.features);
  if (!log.is_none()) {
    decays_from_start<T>(log, n, own.state.factors);
    decays_to_end<T>(log, n, own.end_factors);
    decay_of_chunk<T>(log, n, chunk_decay_of<T>(args, chunk));
  }
  look_ahead(args);
  const auto system = delta_rows<T>(args, args.delta.system, chunk, kChunk);
  const auto b = args.delta.products == nullptr ? system : held_products<T>(args, chunk);
  decayed_products<T>(log, n, args.d, key, key, own.product, b);
  look_ahead(args);
  prepare_system<T>(n, /*for_backward=*/false, write_strengths(args, chunk, own.beta), read_only(b), system);
  copy_matrix(value_rows<Element>(args, chunk, own.state.values), n, width,
              delta_rows<T>(args, args.delta.written, chunk, width));
  return decay_keys<T>(args, chunk, log, key, own.state.factors, own.end_factors);
}

/// The same for other tasks, which find the keys where decayed ones are held.
template <typename Element>
void prepare_delta(const LinearArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  Scratch scratch(memory);
  const auto chunk = chunk_at(args, task);
  const auto keys = prepare_delta<Element>(args, chunk, {scratch, args});
  if (args.decay_width > 0) return;
  const int64_t features = padded<T>(args.d);
  copy_matrix(keys.from_start, chunk.steps, features,
              delta_rows<T>(args, args.delta.from_start, chunk, features));
}

/// to [steps, stride] = beta_t rows_t, of columns of which the first is `column`; of the column of ones,
/// where it is among them, `ones` times itself.
template <typename T>
void strengthen(const LinearArgs& args, const T* beta, Rows<const T> rows, int64_t steps, int64_t column,
                int64_t width, T ones, Rows<T> to) {
  const int64_t of_ones = args.normalize ? args.d_v - column : -1;
  for (int64_t t = 0; t < steps; ++t) {
    T* row = to.data + t * to.stride;
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      store(row + c, load(rows.data + t * rows.stride + c) * beta[t]);
    }
    if (of_ones >= 0 && of_ones < width) row[of_ones] = ones * rows.data[t * rows.stride + of_ones];
  }
}

/// What a chunk wrote, once its states are known.
template <typename T>
Rows<const T> written_rows(const LinearArgs& args, const Chunk& chunk, const T* beta, T* copy) {
  const int64_t width = padded<T>(args.state_width());
  const auto rows = delta_rows<T>(args, args.delta.written, chunk, width);
  strengthen<T>(args, beta, read_only(rows), chunk.steps, 0, width, T{1}, {copy, width});
  return {copy, width};
}

/// Columns of the states of a task: they don't depend on each other.
template <typename T>
constexpr int64_t kColumnBlock = 2 * kLanes<T>;

template <typename T>
int64_t column_blocks(const LinearArgs& args) {
  return divide_up(args.state_width(), kColumnBlock<T>);
}

template <typename T>
StateBlock columns_at(const LinearArgs& args, int64_t task) {
  const int64_t column = task % column_blocks<T>(args) * kColumnBlock<T>;
  const int64_t width = smaller(kColumnBlock<T>, padded<T>(args.state_width()) - column);
  return {task / column_blocks<T>(args), 0, args.d, column, width};
}

/// Z of a chunk's columns, in the place of its values.
template <typename T>
void solve_chunk(const LinearArgs& args, const Chunk& chunk, const StateBlock& block, Rows<const T> key,
                 const T* state, const DeltaScratch<T>& own) {
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto system = delta_rows<T>(args, args.delta.system, chunk, kChunk);
  auto written = delta_rows<T>(args, args.delta.written, chunk, width);
  written.data += block.column;
  look_ahead(args);
  gemm_dots<T>(n, block.width, args.d, {key.data, key.stride, 1}, {state, width}, {own.values, block.width});
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t c = 0; c < block.width; c += kLanes<T>) {
      T* known = own.values + t * block.width + c;
      store(known, load(written.data + t * width + c) - load(known));
    }
  }
  const int64_t ones = args.normalize ? args.d_v - block.column : -1;
  look_ahead(args);
  solve_lower<T>(n, block.width, read_only(system), {own.values, block.width}, written);
  if (ones < 0 || ones >= block.width) return;
  for (int64_t t = 0; t < n; ++t) {
    written.data[t * width + ones] = t >= chunk.keys.begin && t < chunk.keys.end ? T{1} : T{0};
  }
}

/// From a block's state at the start of a chunk to that at its end.
template <typename T>
void pass_delta(const LinearArgs& args, const Chunk& chunk, const StateBlock& block,
                const DecayedKeys<T>& keys, const DeltaScratch<T>& own) {
  const int64_t width = padded<T>(args.state_width()), n = chunk.index;
  const T* beta = write_strengths(args, chunk, own.beta);
  solve_chunk<T>(args, chunk, block, keys.from_start, block_at<T>(args, args.states, block, n), own);
  auto written = delta_rows<T>(args, args.delta.written, chunk, width);
  written.data += block.column;
  strengthen<T>(args, beta, read_only(written), chunk.steps, block.column, block.width, T{1},
                {own.strengths, block.width});
  // S' = (K decayed to the end)^T U + diag(decay) S
  gemm_dots<T>(args.d, block.width, chunk.steps, {keys.to_end.data, 1, keys.to_end.stride},
               {own.strengths, block.width}, {block_at<T>(args, args.states, block, n + 1), width});
  add_decayed_state<T>(args, args.states, block, n);
}

template <typename T>
void delta_states(const LinearArgs& args, int64_t task, void* memory) {
  Scratch scratch(memory);
  const DeltaScratch<T> own(scratch, args);
  const auto block = columns_at<T>(args, task);
  begin_states<T>(args, args.states, block);
  for (int64_t n = 0; n < args.held_chunks; ++n) {
    const auto chunk = chunk_at(args, block.slot * args.held_chunks + n);
    pass_delta<T>(args, chunk, block, held_keys<T>(args, chunk), own);
  }
  end_states<T>(args, args.states, block);
}

}  // namespace
}  // namespace attend::cpu
