#pragma once

// The linear attention kernels as the rest of the library sees them: plain structures, and a table of
// functions for each instruction set.
//
// A sequence is cut into chunks. Of many heads, each goes from chunk to chunk by itself, with its state in
// the nearest caches. Of few heads, what each chunk adds to the state is computed for all chunks at once,
// then the states at the chunks' starts are put together one after the other, then the outputs of all chunks
// at once (Yang 2023, section 4). Gradients go either way, too: forwards for the states at the chunks'
// starts, then with the gradients of the states from the end to the start.

#include <cstdint>

#include "cpu/runtime/heads.h"

namespace attend::cpu {

/// The most steps of a chunk.
constexpr int64_t kChunk = 64;

/// Steps of a chunk of a head that goes from chunk to chunk: a state at hand costs less than products within
/// longer chunks.
constexpr int64_t kHeadChunk = 16;

enum class KernelFeatureMap { elu_plus_one, relu, identity };

/// The states at the starts of some chunks of some heads, and after the last: [heads at once, held chunks +
/// 1, d, state width], rows padded to whole vectors. The last of them comes first where it is about
/// gradients.
struct States {
  void* data;
  const void* initial;  ///< [B, H, d, state width]; null: zeros
  void* final;          ///< the same, or null; may be the memory of `initial`
  bool from_end;
};

/// What the delta rule is computed from, of the same chunks; of T, [heads at once, held chunks, ...],
/// rows padded to whole vectors. See linear_attention_delta.h.
struct DeltaChunks {
  void *from_start, *to_end;  ///< [kChunk, d]: the keys, decayed; without decays the same, and of a head by
                              ///< itself none
  void* products;             ///< [kChunk, kChunk]: B, for the backward alone
  void* system;               ///< [kChunk, kChunk], ready to be solved: the forward's, then the backward's
  void *written, *grad_written;  ///< [kChunk, state width]
};

/// Rows that are needed soon, each of some bytes. They are asked for a few at a time, between one product and
/// the next: memory delivers them meanwhile.
struct Ahead {
  struct Part {
    const char* data;
    int64_t stride, bytes;  ///< of a row
    int64_t rows;
  };
  Part parts[4];
  int64_t row;  ///< the next
};

/// Step t of max(Lq, Lk) has key t + Lk - steps() and query t + Lq - steps(), where there are such. "T" is
/// float, double for float64.
struct LinearArgs {
  Heads query, key, value;
  Heads log_decay;             ///< of T, [B, H, Lk, decay_width]
  int64_t decay_width;         ///< 0: no decay; 1, or d for each channel
  bool has_beta;               ///< false: no delta rule
  Heads beta;                  ///< of T, [B, H, Lk, 1]
  const int64_t* key_lengths;  ///< [B] or null
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
  KernelFeatureMap feature_map;
  bool normalize;
  double scale;

  int64_t chunk_steps;               ///< up to kChunk
  int64_t first_head;                ///< of B * H: the first of those whose states are held
  int64_t first_chunk, held_chunks;  ///< of these heads: those whose states are held
  States states;                     ///< of a head by itself: but for the data
  void* chunk_decays;  ///< of T, [heads at once, held chunks, decay_width], rows padded: of all steps of a
                       ///< chunk
  DeltaChunks delta;
  Ahead* ahead;  ///< or null

  int64_t steps() const { return queries > keys ? queries : keys; }
  int64_t chunks() const { return (steps() + chunk_steps - 1) / chunk_steps; }
  bool has_delta_rule() const { return has_beta; }
  int64_t state_width() const { return d_v + (normalize ? 1 : 0); }
};

struct LinearForwardArgs : LinearArgs {
  Heads output;
  void* normaliser;  ///< of T, [B, H, Lq], or null
  Heads unrounded;   ///< of T: the output before it is rounded; or null
};

/// Columns of the values of a head.
struct ValueColumns {
  int64_t first, count;
};

struct LinearBackwardArgs : LinearArgs {
  Heads grad_output;
  Heads unrounded;  ///< as the forward gave them; null unless normalize
  const void* normaliser;
  States grad_states;
  Heads grad_query, grad_key, grad_value;  ///< of T, [B, H, L, ...]: for each head of the query
  void* grad_log_decay;                    ///< of T, [B, H, Lk, decay_width]
  void* grad_beta;                         ///< of T, [B, H, Lk]
};

/// The kernels for one element type. Each task can run on any thread, with scratch memory of its own, aligned
/// to 64 bytes; the result depends neither on the order of the tasks nor on the threads.
struct LinearAttentionKernels {
  int64_t lanes;  ///< of a vector of T
  int64_t (*scratch)(const LinearArgs&);
  int64_t (*backward_scratch)(const LinearArgs&);
  /// What a chunk adds to the state, into the state after it; for each head and chunk.
  void (*add_to_state)(const LinearArgs&, int64_t task, void* scratch);
  /// The same, of the gradients of the states.
  void (*add_to_grad_state)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// In their place with the delta rule: what can be told of each chunk before the states are known.
  void (*prepare_delta)(const LinearArgs&, int64_t task, void* scratch);
  void (*prepare_grad_delta)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// Puts the states together; for each head and block of columns.
  int64_t (*column_blocks)(const LinearArgs&);
  void (*delta_states)(const LinearArgs&, int64_t task, void* scratch);
  void (*delta_grad_states)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// Puts the states together without the delta rule; for each head and block of rows.
  int64_t (*row_blocks)(const LinearArgs&);
  void (*join_states)(const LinearArgs&, const States&, int64_t task);
  /// For each head and chunk.
  void (*outputs)(const LinearForwardArgs&, int64_t task, void* scratch);
  /// Outputs and final state of one of B * H heads, chunk after chunk, or of some columns of its values:
  /// whatever columns go together, each gets the same bits.
  int64_t (*head_scratch)(const LinearArgs&);
  void (*outputs_of_head)(const LinearForwardArgs&, int64_t head, const ValueColumns&, void* scratch);
  void (*gradients)(const LinearBackwardArgs&, int64_t task, void* scratch);
  /// Gradients of one of B * H heads, chunk after chunk: the same bits as of many chunks at once.
  int64_t (*head_backward_scratch)(const LinearArgs&);
  void (*gradients_of_head)(const LinearBackwardArgs&, int64_t head, void* scratch);
  /// A single token: changes the states [B, H, d, state width] themselves, for each head.
  int64_t (*step_scratch)(const LinearArgs&);
  void (*step)(const LinearForwardArgs&, int64_t head, void* scratch);
};

/// The kernels for the instruction set that ATen detected, or was told by ATEN_CPU_CAPABILITY.
const LinearAttentionKernels& linear_attention_kernels(ElementType type);

}  // namespace attend::cpu
