#pragma once

// The interface of the attention kernels: arguments as plain structures, and a table of functions for each
// instruction set. Naming: query head h reads key/value head h / group(); a block is a set of queries, a tile
// a set of keys.

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
  const MaskTiles* mask;        ///< or null
  const ScoreTiles* score_mod;  ///< or null
  uint64_t dropout_seed;
  uint32_t dropout_threshold;  ///< see core/philox.h; 0: no dropout
  double dropout_scale;        ///< factor of the weights that are not dropped
  int64_t splits;              ///< the number of ranges into which the keys of a head are split
  /// The number of blocks of queries, up to kMaxBlocksPerTask, that are processed against one tile of keys
  /// before the next: each tile is read from memory once for all of them.
  int64_t blocks_per_task;

  int64_t group() const { return heads / kv_heads; }
};

struct ForwardArgs : AttentionArgs {
  StridedTensor output;
  /// [B, H, Lq] of float (double for float64), null unless softmax. logsumexp_low is the low-order word: the
  /// sum of both is the logsumexp to twice the precision, so that backward recomputes the weights of large
  /// scores exactly.
  void *logsumexp, *logsumexp_low;
  /// [splits, B, H, Lq, d_v + 2] of float (double): the weighted sums of each split, its maximum and its
  /// denominator. Null if splits is 1.
  void* partials;
};

struct BackwardArgs : AttentionArgs {
  StridedTensor output, grad_output;
  const void *logsumexp, *logsumexp_low;  ///< [B, H, Lq], results of forward; null unless softmax
  const void* grad_logsumexp;             ///< [B, H, Lq] or null
  /// Of float (double for float64), rows padded to whole vectors. grad_query [splits, B, H, Lq, D] is
  /// written; grad_key [B, Hkv, Lk, D] and grad_value [B, Hkv, Lk, Dv] are accumulated into and must be
  /// initialised.
  void *grad_query, *grad_key, *grad_value;
};

/// The kernels for one element type. Each task can run on any thread, with its own scratch memory, aligned to
/// 64 bytes; the result depends neither on the order of the tasks nor on the threads.
struct AttentionKernels {
  int64_t tile_keys;                        ///< keys of a tile
  int64_t lanes;                            ///< of a vector of float (double for float64)
  int64_t (*blocks)(const AttentionArgs&);  ///< the number of blocks of queries of one key/value head
  int64_t (*forward_scratch_bytes)(const ForwardArgs&);  ///< bytes
  /// Tasks: B * Hkv * ceil(blocks / blocks_per_task) * splits.
  void (*forward)(const ForwardArgs&, int64_t task, void* scratch);
  /// Merges the splits of one row; rows: B * H * Lq.
  void (*merge_splits)(const ForwardArgs&, int64_t row);
  int64_t (*backward_scratch_bytes)(const BackwardArgs&);  ///< bytes
  /// Tasks: B * Hkv * splits.
  void (*backward)(const BackwardArgs&, int64_t task, void* scratch);
};

/// The kernels for the instruction set of this process; see cpu/runtime/instruction_set.h.
const AttentionKernels& attention_kernels(ElementType type);

}  // namespace attend::cpu
