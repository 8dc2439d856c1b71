#pragma once

// The interface of the linear attention kernels: arguments as plain structures, and a table of functions for
// each instruction set. They compute, for each head (Katharopoulos 2020; decays: Sun 2023, Yang 2023; delta
// rule: Yang 2024),
//
//     S_t = diag(a_t) S_{t-1} + k_t u_t^T,   o_t = scale S_t^T q_t / n_t,
//
// u_t = v_t, or with the delta rule beta_t (v_t - (diag(a_t) S_{t-1})^T k_t); a_t = exp(log_decay_t). The
// normaliser n_t is one more column of the state, in which all values are 1; without it, n_t = 1.
//
// A sequence is cut into chunks. There are two schedules. Sequential: one task per head, which goes from
// chunk to chunk with its state in the first-level caches; for many heads. Parallel: the contribution of each
// chunk to the state, all chunks concurrently; a scan over the chunks, which gives the state at the start of
// each; the outputs, all chunks concurrently (Yang 2023, section 4); for few heads. The backward has the same
// two: it recomputes the states at the chunks' starts, then scans the gradients of the states from the last
// chunk to the first.

#include <cstdint>

#include "cpu/simd/element_type.h"
#include "cpu/simd/sizes.h"
#include "cpu/simd/strided_tensor.h"

namespace attend::cpu {

/// The maximal number of steps of a chunk.
constexpr int64_t kMaxChunk = 64;

/// Steps of a chunk in the sequential forward: with the state in the caches, short chunks are cheaper than
/// the products within longer ones.
constexpr int64_t kSequentialChunk = 16;

enum class KernelFeatureMap { elu_plus_one, relu, identity };

/// The states at the starts of the resident chunks of the resident heads, and after the last chunk: [resident
/// heads, resident chunks + 1, d, state width], rows padded to whole vectors.
struct States {
  void* data;
  const void* initial;  ///< [B, H, d, state width]; null: zeros
  void* final;          ///< the same shape, or null; may be the memory of `initial`
  bool from_end;        ///< whether `initial` is the state after the last chunk, as for gradients
};

/// Intermediate results of the delta rule, of the same chunks; of T, [resident heads, resident chunks, ...],
/// rows padded to whole vectors. See delta.h.
struct DeltaChunks {
  /// [kMaxChunk, d]: the decayed keys. Without decays both are one buffer, which the sequential schedule does
  /// not use.
  void *from_start, *to_end;
  void* products;  ///< [kMaxChunk, kMaxChunk]: B; backward only
  void* system;    ///< [kMaxChunk, kMaxChunk]: the prepared triangular system of the forward, then of the
                   ///< backward
  void *written, *grad_written;  ///< [kMaxChunk, state width]
};

/// Rows to be prefetched, a few at a time between products, so that memory latency overlaps with computation.
struct PrefetchQueue {
  struct Part {
    const char* data;
    int64_t stride, bytes;  ///< of a row
    int64_t rows;
  };
  Part parts[4];
  int64_t row;  ///< the next to be prefetched
};

/// Queries and keys are aligned at their ends: step t of max(Lq, Lk) has key t + Lk - steps() and query t +
/// Lq - steps(), if these are not negative. T is float, or double for float64.
struct LinearArgs {
  StridedTensor query, key, value;
  StridedTensor log_decay;     ///< of T, [B, H, Lk, decay_width]
  int64_t decay_width;         ///< 0: no decay; 1: one per step; d: one per channel
  bool has_beta;               ///< false: no delta rule
  StridedTensor beta;          ///< of T, [B, H, Lk, 1]
  const int64_t* key_lengths;  ///< [B] or null
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
  KernelFeatureMap feature_map;
  bool normalize;
  double scale;

  int64_t chunk_steps;                   ///< up to kMaxChunk
  int64_t first_head;                    ///< the first resident head, of B * H
  int64_t first_chunk, resident_chunks;  ///< the resident chunks of these heads
  States states;                         ///< data is null in the arguments of head_forward and head_backward
  /// Of T, [resident heads, resident chunks, decay_width], rows padded: the decay of all steps of a chunk.
  void* chunk_decays;
  DeltaChunks delta;
  PrefetchQueue* prefetch;  ///< or null

  int64_t steps() const { return queries > keys ? queries : keys; }
  int64_t chunks() const { return divide_up(steps(), chunk_steps); }
  bool has_delta_rule() const { return has_beta; }
  int64_t state_width() const { return d_v + (normalize ? 1 : 0); }
};

struct LinearForwardArgs : LinearArgs {
  StridedTensor output;
  void* normaliser;         ///< of T, [B, H, Lq], or null
  StridedTensor unrounded;  ///< of T: the output before rounding to its dtype; or null
};

/// A range of the columns of the values of a head.
struct ValueColumns {
  int64_t first, count;
};

struct LinearBackwardArgs : LinearArgs {
  StridedTensor grad_output;
  StridedTensor unrounded;  ///< results of the forward; null unless normalize
  const void* normaliser;
  States grad_states;
  StridedTensor grad_query, grad_key, grad_value;  ///< of T, [B, H, L, ...]: of each query head
  void* grad_log_decay;                            ///< of T, [B, H, Lk, decay_width]
  void* grad_beta;                                 ///< of T, [B, H, Lk]
};

/// The kernels for one element type. Each task can run on any thread, with its own scratch memory, aligned to
/// 64 bytes; the result depends neither on the order of the tasks nor on the threads.
struct LinearAttentionKernels {
  int64_t lanes;  ///< of a vector of T

  // ---- the parallel schedule. A task is a resident head and chunk, unless noted.
  int64_t (*forward_scratch_bytes)(const LinearArgs&);
  int64_t (*backward_scratch_bytes)(const LinearArgs&);
  /// Without the delta rule: the contribution of a chunk to the state, or to the gradient of the state,
  /// stored in the place of the state after the chunk (before it, for gradients).
  void (*add_to_state)(const LinearArgs&, int64_t task, void* scratch);
  void (*add_to_grad_state)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// With the delta rule: the part of a chunk's computation that does not depend on the state.
  void (*prepare_delta)(const LinearArgs&, int64_t task, void* scratch);
  void (*prepare_grad_delta)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// With the delta rule: the scan over the chunks. A task is a resident head and a block of columns.
  int64_t (*column_blocks)(const LinearArgs&);
  void (*scan_delta_states)(const LinearArgs&, int64_t task, void* scratch);
  void (*scan_delta_grad_states)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// Without the delta rule: the scan over the chunks. A task is a resident head and a block of rows.
  int64_t (*row_blocks)(const LinearArgs&);
  void (*scan_states)(const LinearArgs&, const States&, int64_t task);
  /// The outputs and the gradients of a chunk from the states.
  void (*chunk_forward)(const LinearForwardArgs&, int64_t task, void* scratch);
  void (*chunk_backward)(const LinearBackwardArgs&, int64_t task, void* scratch);

  // ---- the sequential schedule. A task is one of B * H heads.
  /// Outputs and final state of some columns of a head's values; the bits do not depend on how columns are
  /// grouped.
  int64_t (*head_forward_scratch_bytes)(const LinearArgs&);
  void (*head_forward)(const LinearForwardArgs&, int64_t head, const ValueColumns&, void* scratch);
  /// Gradients of a head: the same bits as those of the parallel schedule.
  int64_t (*head_backward_scratch_bytes)(const LinearArgs&);
  void (*head_backward)(const LinearBackwardArgs&, int64_t head, void* scratch);

  // ---- a single token. A task is one of B * H heads. Updates the states [B, H, d, state width] in place.
  int64_t (*step_scratch_bytes)(const LinearArgs&);
  void (*step)(const LinearForwardArgs&, int64_t head, void* scratch);
};

/// The kernels for the instruction set of this process; see cpu/runtime/instruction_set.h.
const LinearAttentionKernels& linear_attention_kernels(ElementType type);

}  // namespace attend::cpu
