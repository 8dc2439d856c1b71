#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/kv_cache.h>
#include <attend/recurrent_state.h>

#include <cstdint>
#include <vector>

namespace attend {

/// The caches and states of a stack of Transformer layers during decoding; see `make_cache` of
/// `nn::TransformerEncoder` and `nn::TransformerDecoder`.
struct ATTEND_API TransformerCache {
  /// The keys and values in the self-attention of each layer with self-attention.
  std::vector<KVCache> self;
  /// The keys and values of the memory in the cross-attention of each decoder layer; they are computed once.
  std::vector<KVCache> memory;
  /// The state of each layer with a recurrent mixer.
  std::vector<RecurrentState> recurrent;
  /// [B, S], true = ignore this position of the memory; or undefined.
  at::Tensor memory_key_padding_mask = {};

  /// Returns a cache of the same contents with memory of its own.
  TransformerCache clone() const;

  /// Returns the number of tokens so far in the longest sequence, without those of the memory; 0 if there are
  /// no layers.
  int64_t length() const;

  /// Removes all tokens. The memory stays.
  void reset();

  /// Truncates every cache of self-attention to `length` tokens. A recurrent state can't be truncated: with
  /// mixers, `length` must be 0 or the current length. Errors (c10::Error) are otherwise those of
  /// `KVCache::truncate`; if this fails for any layer, no layer is changed.
  void truncate(int64_t length);

  /// Replaces sequence b by the sequence that had index sequences[b] before the call, in every cache and
  /// state; see `KVCache::select`. If this fails for any layer, no layer is changed.
  void select(const at::Tensor& sequences);
};

}  // namespace attend
