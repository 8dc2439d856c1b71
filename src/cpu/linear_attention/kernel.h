#pragma once

// The interface of the linear attention kernels: arguments as plain structures, and a table of functions for
// each instruction set. The kernels compute, for each head (Katharopoulos 2020; decays: Sun 2023, Yang 2023;
// delta rule: Yang 2024),
//
//     S_t = diag(a_t) S_{t-1} + k_t u_t^T,   o_t = scale S_t^T q_t / n_t,
//
// u_t = v_t, or with the delta rule beta_t (v_t - (diag(a_t) S_{t-1})^T k_t); a_t = exp(log_decay_t). The
// normaliser n_t is one more column of the state, in which all values are 1; without it, n_t = 1.
//
// A sequence is divided into chunks, which are computed in one of two schedules. The sequential schedule, for
// many heads, has one task per head; the task goes from chunk to chunk with the state in the first-level
// caches. The parallel schedule, for few heads, has three phases (Yang 2023, section 4): the contribution of
// each chunk to the state, for all chunks concurrently; a scan over the chunks, which gives the state at the
// start of each chunk; and the outputs, for all chunks concurrently. The backward has the same two schedules.
// It recomputes the state at the start of each chunk, and then computes the gradients of the states from the
// last chunk to the first.

#include <cstdint>

#include "cpu/simd/element_type.h"
#include "cpu/simd/sizes.h"
#include "cpu/simd/strided_tensor.h"

namespace attend::cpu {

/// The maximal number of steps of a chunk.
constexpr int64_t kMaxChunk = 64;

/// The number of steps of a chunk in the sequential forward. With the state in the caches, short chunks are
/// faster than long ones, whose products within the chunk cost more.
constexpr int64_t kSequentialChunk = 16;

enum class KernelFeatureMap { elu_plus_one, relu, identity };

/// The states at the start of each resident chunk, and at the end of the last one: [resident heads, resident
/// chunks + 1, d, state width], with rows padded to whole vectors. Heads and chunks are resident if they are
/// computed together and their states are in these buffers.
struct States {
  void* data;
  const void* initial;  ///< [B, H, d, state width]; null means zeros
  void* final;          ///< the shape of `initial`; may be null or the same memory as `initial`
  bool from_end;        ///< whether `initial` is the state at the end of the last chunk, as for gradients
};

/// Intermediate results of the delta rule for the resident chunks; see delta.h. Each buffer holds elements of
/// type T, [resident heads, resident chunks, ...], with rows padded to whole vectors.
struct DeltaChunks {
  /// [kMaxChunk, d]: the keys decayed from the chunk's start, and to its end. Without decays both pointers
  /// are equal; the sequential schedule then does not use the buffer.
  void *from_start, *to_end;
  void* products;  ///< [kMaxChunk, kMaxChunk]: the matrix B; backward only
  void* system;    ///< [kMaxChunk, kMaxChunk]: the prepared triangular system of the forward, then of the
                   ///< backward
  void *written, *grad_written;  ///< [kMaxChunk, state width]
};

/// Rows to be prefetched. A few are prefetched between matrix products, so that memory latency overlaps with
/// computation.
struct PrefetchQueue {
  struct Part {
    const char* data;
    int64_t stride, bytes;  ///< the stride and the size of a row, in bytes
    int64_t rows;
  };
  Part parts[4];
  int64_t row;  ///< the next row to be prefetched, in every part
};

/// The arguments of a call. The last query is aligned with the last key: step t of steps() = max(Lq, Lk) has
/// key t + Lk - steps() and query t + Lq - steps(), unless this index is negative. T is float, or double for
/// float64.
struct LinearArgs {
  StridedTensor query, key, value;
  StridedTensor log_decay;     ///< elements of type T, [B, H, Lk, decay_width]
  int64_t decay_width;         ///< 0: no decay; 1: one decay per step; d: one decay per channel
  bool has_beta;               ///< false: no delta rule
  StridedTensor beta;          ///< elements of type T, [B, H, Lk, 1]
  const int64_t* key_lengths;  ///< [B] or null
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
  KernelFeatureMap feature_map;
  bool normalize;
  double scale;

  int64_t chunk_steps;                   ///< up to kMaxChunk
  int64_t first_head;                    ///< the index of the first resident head, in 0 ... B * H - 1
  int64_t first_chunk, resident_chunks;  ///< the resident chunks of these heads
  States states;                         ///< data is null in the arguments of head_forward and head_backward
  /// The product of the decays of all steps of each chunk: elements of type T, [resident heads, resident
  /// chunks, decay_width], with padded rows.
  void* chunk_decays;
  DeltaChunks delta;
  PrefetchQueue* prefetch;  ///< may be null

  int64_t steps() const { return queries > keys ? queries : keys; }
  int64_t chunks() const { return divide_up(steps(), chunk_steps); }
  bool has_delta_rule() const { return has_beta; }
  int64_t state_width() const { return d_v + (normalize ? 1 : 0); }
};

struct LinearForwardArgs : LinearArgs {
  StridedTensor output;
  void* normaliser;         ///< elements of type T, [B, H, Lq]; or null
  StridedTensor unrounded;  ///< the output before rounding to its dtype, elements of type T; or null
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
  /// The gradients for each query head: elements of type T, [B, H, L, ...]. All gradients, grad_states.final
  /// among them, are null where they are not wanted.
  StridedTensor grad_query, grad_key, grad_value;
  void* grad_log_decay;  ///< elements of type T, [B, H, Lk, decay_width]
  void* grad_beta;       ///< elements of type T, [B, H, Lk]

  /// Whether the gradients of the states are needed: for every gradient but that of the query.
  bool needs_grad_states() const {
    return grad_key.data != nullptr || grad_value.data != nullptr || grad_log_decay != nullptr ||
           grad_beta != nullptr || grad_states.final != nullptr;
  }
  /// Whether the states at the chunks' starts are needed, or what is computed with them: the decays of chunks
  /// and the values that the delta rule writes.
  bool needs_states() const { return grad_query.data != nullptr || decay_width > 0 || has_delta_rule(); }
  bool needs_grad_delta() const { return has_delta_rule() && needs_grad_states(); }
  /// Whether the gradients of these rows are computed: they are wanted, or terms of others.
  bool computes_grad_query() const { return grad_query.data != nullptr || grad_log_decay != nullptr; }
  bool computes_grad_key() const {
    return grad_key.data != nullptr || grad_log_decay != nullptr || needs_grad_delta();
  }
  bool computes_grad_value() const { return grad_value.data != nullptr || needs_grad_delta(); }
  /// Whether A, the products of queries and keys, is needed.
  bool needs_products() const { return computes_grad_value() || grad_log_decay != nullptr; }
};

/// The kernels for one element type. Each task can run on any thread, with its own scratch memory, aligned to
/// 64 bytes; the result depends neither on the order of the tasks nor on the threads.
struct LinearAttentionKernels {
  int64_t lanes;  ///< the number of elements of a vector

  // ---- the parallel schedule. A task is one resident chunk of one resident head, unless stated otherwise.
  int64_t (*forward_scratch_bytes)(const LinearArgs&);
  int64_t (*backward_scratch_bytes)(const LinearArgs&);
  /// Without the delta rule: compute the contribution of a chunk to the state, or to the gradient of the
  /// state. The contribution is stored in place of the state at the end of the chunk, or of the gradient of
  /// the state at its start.
  void (*add_to_state)(const LinearArgs&, int64_t task, void* scratch);
  void (*add_to_grad_state)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// With the delta rule: compute the part of a chunk that does not depend on the state.
  void (*prepare_delta)(const LinearArgs&, int64_t task, void* scratch);
  void (*prepare_grad_delta)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// With the delta rule: scan the states over the chunks. A task is a block of columns of the states of a
  /// resident head.
  int64_t (*column_blocks)(const LinearArgs&);
  void (*scan_delta_states)(const LinearArgs&, int64_t task, void* scratch);
  void (*scan_delta_grad_states)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// Without the delta rule: scan the states over the chunks. A task is a block of rows of the states of a
  /// resident head.
  int64_t (*row_blocks)(const LinearArgs&);
  void (*scan_states)(const LinearArgs&, const States&, int64_t task);
  /// Compute the outputs, and the gradients, of a chunk from the states.
  void (*chunk_forward)(const LinearForwardArgs&, int64_t task, void* scratch);
  void (*chunk_backward)(const LinearBackwardArgs&, int64_t task, void* scratch);

  // ---- the sequential schedule. A task is one of B * H heads.
  /// Computes the outputs and the final state for some columns of the values of a head. The bits of the
  /// result do not depend on how columns are grouped.
  int64_t (*head_forward_scratch_bytes)(const LinearArgs&);
  void (*head_forward)(const LinearForwardArgs&, int64_t head, const ValueColumns&, void* scratch);
  /// Computes the gradients of a head, with the same bits as the parallel schedule.
  int64_t (*head_backward_scratch_bytes)(const LinearArgs&);
  void (*head_backward)(const LinearBackwardArgs&, int64_t head, void* scratch);

  // ---- a single token. A task is one of B * H heads. The states [B, H, d, state width] are updated in
  // place.
  int64_t (*step_scratch_bytes)(const LinearArgs&);
  void (*step)(const LinearForwardArgs&, int64_t head, void* scratch);
};

/// The kernels for the instruction set of this process; see cpu/runtime/instruction_set.h.
const LinearAttentionKernels& linear_attention_kernels(ElementType type);

}  // namespace attend::cpu
