#pragma once

// The interface of the attention kernels: arguments as plain structures, and a table of functions for each
// instruction set. Query head h reads key/value head h / group(). A block is a range of the query rows of a
// key/value head, a tile of keys is a range of kTileKeys keys; `Tile` (cpu/mask/tiles.h) is a rectangle of
// scores.

#include <cstdint>

#include "cpu/mask/tiles.h"
#include "cpu/score_mod/tiles.h"
#include "cpu/simd/element_type.h"
#include "cpu/simd/strided_tensor.h"

namespace attend::cpu {

constexpr int64_t kMaxBlocksPerTask = 4;

enum class KernelWeighting { softmax, sigmoid, relu };

/// The arguments that forward and backward share.
struct AttentionArgs {
  StridedTensor query, key, value;
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
  double scale;
  KernelWeighting weighting;
  const MaskTiles* mask;        ///< may be null
  const ScoreTiles* score_mod;  ///< may be null
  uint64_t dropout_seed;
  uint32_t dropout_threshold;  ///< 0 means no dropout; see core/philox.h
  double dropout_scale;        ///< the factor of weights that are not dropped
  int64_t splits;              ///< the number of ranges into which the keys of a head are split
  /// The number of blocks of queries, up to kMaxBlocksPerTask, that a task computes for a tile of keys before
  /// it goes on to the next tile. Each tile is read from memory once for all these blocks.
  int64_t blocks_per_task;

  int64_t group() const { return heads / kv_heads; }
};

struct ForwardArgs : AttentionArgs {
  StridedTensor output;
  /// Float (double for float64) [B, H, Lq]; null unless the weighting is softmax. logsumexp + logsumexp_low
  /// is the logsumexp to twice the precision, so that the backward recomputes the weights of large scores
  /// exactly.
  void *logsumexp, *logsumexp_low;
  /// Float (double for float64) [splits, B, H, Lq, d_v + 2]: the weighted sums of the values of each split,
  /// the maximum of its scores and its denominator. Null if splits is 1.
  void* partials;
};

struct BackwardArgs : AttentionArgs {
  StridedTensor output, grad_output;
  const void *logsumexp, *logsumexp_low;  ///< [B, H, Lq], results of the forward; null unless softmax
  const void* grad_logsumexp;             ///< [B, H, Lq] or null
  /// Float (double for float64), with rows padded to whole vectors; null for a gradient that is not wanted.
  /// The kernels write grad_query [splits, B, H, Lq, D], and add to grad_key [B, Hkv, Lk, D] and grad_value
  /// [B, Hkv, Lk, Dv], which must be initialised.
  void *grad_query, *grad_key, *grad_value;
  /// Whether the gradients of the scores are needed: for grad_query, grad_key or the score modification.
  bool needs_grad_scores;
};

/// The kernels for one element type. Each task can run on any thread, with its own scratch memory, aligned to
/// 64 bytes; the result depends neither on the order of the tasks nor on the threads.
struct AttentionKernels {
  int64_t tile_keys;  ///< the number of keys of a tile
  /// The number of elements of a vector of float (double for float64).
  int64_t lanes;
  int64_t (*blocks)(const AttentionArgs&);  ///< the number of blocks of queries of one key/value head
  int64_t (*forward_scratch_bytes)(const ForwardArgs&);
  /// The number of tasks is B * Hkv * ceil(blocks / blocks_per_task) * splits.
  void (*forward)(const ForwardArgs&, int64_t task, void* scratch);
  /// Merges the splits of one of the B * H * Lq rows.
  void (*merge_splits)(const ForwardArgs&, int64_t row);
  int64_t (*backward_scratch_bytes)(const BackwardArgs&);
  /// The number of tasks is B * Hkv * splits.
  void (*backward)(const BackwardArgs&, int64_t task, void* scratch);
};

/// The kernels for the instruction set of this process; see cpu/runtime/instruction_set.h.
const AttentionKernels& attention_kernels(ElementType type);

}  // namespace attend::cpu
