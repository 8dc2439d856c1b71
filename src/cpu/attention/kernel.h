#pragma once

// The attention kernels as the rest of the library sees them: plain structures, and a table of functions for
// each instruction set.

#include <cstdint>

#include "cpu/mask/tiles.h"
#include "cpu/runtime/heads.h"

namespace attend::cpu {

constexpr int64_t kMostBlocksTogether = 4;

enum class KernelWeighting { softmax, sigmoid, relu };

/// What forward and backward have in common.
struct AttentionArgs {
  Heads query, key, value;
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
  double scale;
  KernelWeighting weighting;
  const MaskTiles* mask;        ///< or null
  const ScoreTiles* score_mod;  ///< or null
  uint64_t dropout_seed;
  uint32_t dropout_threshold;  ///< see ../philox.h; 0: no dropout
  double dropout_scale;        ///< of the weights that are kept
  int64_t splits;              ///< into how many ranges of keys the work on a head is split
  /// How many blocks of queries go over the keys side by side, up to kMostBlocksTogether: each tile of keys
  /// comes from memory once for them all.
  int64_t blocks_together;

  int64_t group() const { return heads / kv_heads; }
};

struct ForwardArgs : AttentionArgs {
  Heads output;
  /// [B, H, Lq] of float (double for float64), or null unless softmax; and what its rounding left out, so
  /// that the backward finds the weights of large scores again.
  void *logsumexp, *logsumexp_rest;
  /// Where splits > 1: for each split, [B, H, Lq, d_v + 2] of float (double): the sums, the maximum and the
  /// denominator.
  void* partial;
};

struct BackwardArgs : AttentionArgs {
  Heads output, grad_output;
  const void *logsumexp, *logsumexp_rest;  ///< [B, H, Lq], as the forward gave them; null unless softmax
  const void* grad_logsumexp;              ///< [B, H, Lq] or null
  /// Of float (double for float64), rows padded to whole vectors: [splits, B, H, Lq, D], written; and,
  /// zeroed, [B, Hkv, Lk, D], [B, Hkv, Lk, Dv], added to.
  void *grad_query, *grad_key, *grad_value;
};

/// The kernels for one element type. Each task can run on any thread, with scratch memory of its own, aligned
/// to 64 bytes; the result depends neither on the order of the tasks nor on the threads.
struct AttentionKernels {
  int64_t tile_keys;
  int64_t lanes;                                   ///< of a vector of float (double for float64)
  int64_t (*blocks)(const AttentionArgs&);         ///< of queries, for one kv head
  int64_t (*forward_scratch)(const ForwardArgs&);  ///< bytes
  /// As many tasks as B * Hkv * ceil(blocks / blocks_together) * splits.
  void (*forward)(const ForwardArgs&, int64_t task, void* scratch);
  /// Joins the splits; as many tasks as B * H * Lq.
  void (*join)(const ForwardArgs&, int64_t row);
  int64_t (*backward_scratch)(const BackwardArgs&);  ///< bytes
  /// As many tasks as B * Hkv * splits.
  void (*backward)(const BackwardArgs&, int64_t task, void* scratch);
};

/// The kernels for the instruction set that ATen detected, or was told by ATEN_CPU_CAPABILITY.
const AttentionKernels& attention_kernels(ElementType type);

}  // namespace attend::cpu
