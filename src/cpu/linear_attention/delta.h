#pragma once

// The delta rule in chunks (WY form: Yang 2024, section 3.2; with decays: Yang & Kautz 2024, Kimi Team 2025).
// Within a chunk, step s writes the value u_s = beta_s z_s to the state; the rest is linear attention with
// the values u. z_t is the difference between the value v_t and the value that the state returns for the key
// k_t:
//
//     z_t = v_t - S_0^T (k_t decayed from the start) - sum over s < t of B_ts beta_s z_s
//     B_ts = k_t (decay of the steps after s up to t) k_s
//
//     Z = (I + B diag(beta))^-1 (V - (K decayed) S_0),   B strictly lower triangular
//
// The delta rule does not apply to the normaliser, which is the sum of the decayed keys: in its column, u =
// 1.

#include "cpu/linear_attention/inter_chunk.h"
#include "cpu/linear_attention/intra_chunk.h"

namespace attend::cpu {
namespace {

/// The number of rows of a block in the solution of a triangular system.
constexpr int64_t kSolveBlock = 16;

template <typename T>
struct DeltaScratch {
  StateScratch<T> state;
  ProductScratch<T> product;
  T* end_factors;      ///< [kMaxChunk, padded decay width]
  T* beta;             ///< [kMaxChunk]
  T *values, *scaled;  ///< [kMaxChunk, padded state width]

  DeltaScratch(ScratchAllocator& allocator, const LinearArgs& args)
      : state(allocator, args), product(allocator, args.d, args.decay_width) {
    end_factors = allocator.take<T>(kMaxChunk * padded<T>(args.decay_width));
    beta = allocator.take<T>(kMaxChunk);
    values = allocator.take<T>(kMaxChunk * padded<T>(args.state_width()));
    scaled = allocator.take<T>(kMaxChunk * padded<T>(args.state_width()));
  }
};

/// Returns the rows of a chunk, of `width` elements each, in a buffer of `DeltaChunks`.
template <typename T>
Rows<T> delta_rows(const LinearArgs& args, void* buffer, const Chunk& chunk, int64_t width) {
  return {static_cast<T*>(buffer) + (chunk.slot * args.resident_chunks + chunk.index) * kMaxChunk * width,
          width};
}

/// Allocates the buffers of the sequential schedule: `written` for `chunks` chunks, the others for one chunk.
template <typename T>
DeltaChunks take_delta(ScratchAllocator& allocator, const LinearArgs& args, int64_t chunks) {
  DeltaChunks delta{};
  if (!args.has_delta_rule()) return delta;
  const int64_t decayed = args.decay_width > 0 ? kMaxChunk * padded<T>(args.d) : 0;
  delta.from_start = allocator.take<T>(decayed);
  delta.to_end = allocator.take<T>(decayed);
  delta.system = allocator.take<T>(kMaxChunk * kMaxChunk);
  delta.written = allocator.take<T>(chunks * kMaxChunk * padded<T>(args.state_width()));
  return delta;
}

template <typename T>
Rows<const T> read_only(Rows<T> rows) {
  return {rows.data, rows.stride};
}

/// Returns beta of each step of the chunk, [kMaxChunk].
template <typename T>
const T* load_beta(const LinearArgs& args, const Chunk& chunk, T* copy) {
  copy_rows<T>(args.beta, chunk.head, chunk, chunk.keys, first_key_step(args), 1, copy, 1);
  return copy;
}

/// Replaces the diagonal blocks of I - N, for strictly lower triangular N, by their inverses, with zeros
/// above the diagonal of each block. The inner loop is over the blocks, which are independent of each other.
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

/// Solves (I - N) X = R for X [n, columns], where the diagonal blocks are inverted already; overwrites R.
template <typename T>
void solve_lower(int64_t n, int64_t columns, Rows<const T> system, Rows<T> r, Rows<T> x) {
  for (int64_t first = 0; first < n; first += kSolveBlock) {
    const int64_t rows = smaller(kSolveBlock, n - first);
    const Rows<T> right{r.data + first * r.stride, r.stride};
    const T* left = system.data + first * system.stride;
    gemm_dots<T, Update::add>(rows, columns, first, {left, system.stride, 1}, read_only(x), right);
    lower_rows_times<T, Update::set>(0, rows, columns, {left + first, system.stride}, read_only(right),
                                     {x.data + first * x.stride, x.stride});
  }
}

/// Solves (I - N)^T X = R in the same way.
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

/// Prepares the system I + B diag(beta), or for the backward I + diag(beta) B, for `solve_lower`. `system`
/// may be the memory of B. Stored vectors may reach beyond the diagonal, but not beyond the diagonal block,
/// which the inversion overwrites.
template <typename T>
void prepare_system(int64_t n, bool for_backward, const T* beta, Rows<const T> b, Rows<T> system) {
  static_assert(kSolveBlock % kLanes<T> == 0);
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t s = 0; s < t; s += kLanes<T>) {
      const auto factor = for_backward ? broadcast(beta[t]) : load(beta + s);
      store(system.data + t * system.stride + s, -factor * load(b.data + t * b.stride + s));
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

/// The keys of a chunk, decayed from its start and decayed to its end.
template <typename T>
struct DecayedKeys {
  Rows<const T> from_start, to_end;
};

/// Returns the matrix B of a chunk, which is stored for the backward.
template <typename T>
Rows<T> key_products(const LinearArgs& args, const Chunk& chunk) {
  return delta_rows<T>(args, args.delta.products, chunk, kMaxChunk);
}

/// Returns the decayed keys of a chunk that `prepare_delta` stored.
template <typename T>
DecayedKeys<T> decayed_keys(const LinearArgs& args, const Chunk& chunk) {
  return {read_only(delta_rows<T>(args, args.delta.from_start, chunk, padded<T>(args.d))),
          read_only(delta_rows<T>(args, args.delta.to_end, chunk, padded<T>(args.d)))};
}

/// Multiplies the keys by the factors, stores the products in `DeltaChunks` and returns them. Without decays,
/// returns the keys.
template <typename T>
DecayedKeys<T> decay_keys(const LinearArgs& args, const Chunk& chunk, const LogDecays<T>& log,
                          Rows<const T> key, const T* start_factors, const T* end_factors) {
  const int64_t n = chunk.steps, features = padded<T>(args.d);
  const auto stored = [&](void* buffer) { return delta_rows<T>(args, buffer, chunk, features).data; };
  return {decayed<T>(key, log, start_factors, n, features, stored(args.delta.from_start)),
          decayed<T>(key, log, end_factors, n, features, stored(args.delta.to_end))};
}

/// Computes the part of a chunk that does not depend on the state at its start: the decayed keys, the
/// triangular system, and a copy of the values in the buffer `written`, where `solve_chunk` replaces them by
/// Z.
template <typename Element>
DecayedKeys<Compute<Element>> prepare_delta(const LinearArgs& args, const Chunk& chunk,
                                            const DeltaScratch<Compute<Element>>& scratch) {
  using T = Compute<Element>;
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto log = log_decays<T>(args, chunk, scratch.state.log_decay);
  const auto key = key_rows<Element>(args, chunk, scratch.state.features);
  if (!log.is_none()) {
    decays_from_start<T>(log, n, scratch.state.factors);
    decays_to_end<T>(log, n, scratch.end_factors);
    chunk_decay<T>(log, n, chunk_decay_at<T>(args, chunk));
  }
  prefetch_some(args);
  const auto system = delta_rows<T>(args, args.delta.system, chunk, kMaxChunk);
  const auto b = args.delta.products == nullptr ? system : key_products<T>(args, chunk);
  decayed_products<T>(log, n, args.d, key, key, scratch.product, b);
  prefetch_some(args);
  prepare_system<T>(n, /*for_backward=*/false, load_beta(args, chunk, scratch.beta), read_only(b), system);
  copy_matrix(value_rows<Element>(args, chunk, scratch.state.values), n, width,
              delta_rows<T>(args, args.delta.written, chunk, width));
  return decay_keys<T>(args, chunk, log, key, scratch.state.factors, scratch.end_factors);
}

/// The same as a task of the parallel schedule. Without decays, the keys are stored in place of the decayed
/// keys.
template <typename Element>
void prepare_delta(const LinearArgs& args, int64_t task, void* memory) {
  using T = Compute<Element>;
  run_chunk_task<DeltaScratch<T>>(args, task, memory,
                                  [&](const Chunk& chunk, const DeltaScratch<T>& scratch) {
                                    const auto keys = prepare_delta<Element>(args, chunk, scratch);
                                    if (args.decay_width > 0) return;
                                    const int64_t features = padded<T>(args.d);
                                    copy_matrix(keys.from_start, chunk.steps, features,
                                                delta_rows<T>(args, args.delta.from_start, chunk, features));
                                  });
}

/// Sets row t of `to` [steps, stride] to beta_t rows_t, for the columns [column, column + width) of the
/// state. The column of the normaliser, if it is one of these, is multiplied by `ones` instead of beta_t.
template <typename T>
void scale_by_beta(const LinearArgs& args, const T* beta, Rows<const T> rows, int64_t steps, int64_t column,
                   int64_t width, T ones, Rows<T> to) {
  const int64_t ones_column = args.normalize ? args.d_v - column : -1;
  for (int64_t t = 0; t < steps; ++t) {
    T* row = to.data + t * to.stride;
    for (int64_t c = 0; c < width; c += kLanes<T>) {
      store(row + c, load(rows.data + t * rows.stride + c) * beta[t]);
    }
    if (ones_column >= 0 && ones_column < width)
      row[ones_column] = ones * rows.data[t * rows.stride + ones_column];
  }
}

/// Returns U of a chunk whose Z has been computed.
template <typename T>
Rows<const T> written_rows(const LinearArgs& args, const Chunk& chunk, const T* beta, T* copy) {
  const int64_t width = padded<T>(args.state_width());
  const auto rows = delta_rows<T>(args, args.delta.written, chunk, width);
  scale_by_beta<T>(args, beta, read_only(rows), chunk.steps, 0, width, T{1}, {copy, width});
  return {copy, width};
}

/// The number of columns of the states in a task of the scan. Columns are independent of each other.
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

/// Computes Z for a block of columns of a chunk, in place of the values in the buffer `written`.
template <typename T>
void solve_chunk(const LinearArgs& args, const Chunk& chunk, const StateBlock& block, Rows<const T> key,
                 const T* state, const DeltaScratch<T>& scratch) {
  const int64_t n = chunk.steps, width = padded<T>(args.state_width());
  const auto system = delta_rows<T>(args, args.delta.system, chunk, kMaxChunk);
  auto written = delta_rows<T>(args, args.delta.written, chunk, width);
  written.data += block.column;
  prefetch_some(args);
  gemm_dots<T>(n, block.width, args.d, {key.data, key.stride, 1}, {state, width},
               {scratch.values, block.width});
  for (int64_t t = 0; t < n; ++t) {
    for (int64_t c = 0; c < block.width; c += kLanes<T>) {
      T* retrieved = scratch.values + t * block.width + c;
      store(retrieved, load(written.data + t * width + c) - load(retrieved));
    }
  }
  const int64_t ones = args.normalize ? args.d_v - block.column : -1;
  prefetch_some(args);
  solve_lower<T>(n, block.width, read_only(system), {scratch.values, block.width}, written);
  if (ones < 0 || ones >= block.width) return;
  for (int64_t t = 0; t < n; ++t) {
    written.data[t * width + ones] = t >= chunk.keys.begin && t < chunk.keys.end ? T{1} : T{0};
  }
}

/// Computes a block of the state at the end of a chunk from the state at its start.
template <typename T>
void advance_delta(const LinearArgs& args, const Chunk& chunk, const StateBlock& block,
                   const DecayedKeys<T>& keys, const DeltaScratch<T>& scratch) {
  const int64_t width = padded<T>(args.state_width()), n = chunk.index;
  const T* beta = load_beta(args, chunk, scratch.beta);
  solve_chunk<T>(args, chunk, block, keys.from_start, block_at<T>(args, args.states, block, n), scratch);
  auto written = delta_rows<T>(args, args.delta.written, chunk, width);
  written.data += block.column;
  scale_by_beta<T>(args, beta, read_only(written), chunk.steps, block.column, block.width, T{1},
                   {scratch.scaled, block.width});
  // S' = (K decayed to the end)^T U + diag(decay) S
  gemm_dots<T>(args.d, block.width, chunk.steps, {keys.to_end.data, 1, keys.to_end.stride},
               {scratch.scaled, block.width}, {block_at<T>(args, args.states, block, n + 1), width});
  add_decayed_state<T>(args, args.states, block, n);
}

template <typename T>
void scan_delta_states(const LinearArgs& args, int64_t task, void* memory) {
  ScratchAllocator allocator(memory);
  const DeltaScratch<T> scratch(allocator, args);
  const auto block = columns_at<T>(args, task);
  load_initial_state<T>(args, args.states, block);
  for (int64_t n = 0; n < args.resident_chunks; ++n) {
    const auto chunk = chunk_at(args, block.slot * args.resident_chunks + n);
    advance_delta<T>(args, chunk, block, decayed_keys<T>(args, chunk), scratch);
  }
  store_final_state<T>(args, args.states, block);
}

}  // namespace
}  // namespace attend::cpu
