#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/kv_cache.h>
#include <attend/recurrent_state.h>

#include <cstdint>
#include <vector>

namespace attend {

/// What a stack of Transformer layers keeps while it decodes; see `make_cache` of `nn::TransformerEncoder`
/// and `nn::TransformerDecoder`.
struct ATTEND_API TransformerCache {
  /// The keys and values of the self-attention of each layer that has one.
  std::vector<KVCache> self;
  /// The keys and values of a decoder's cross-attention to the memory, of each layer; filled once.
  std::vector<KVCache> memory;
  /// The state of each layer with a recurrent mixer.
  std::vector<RecurrentState> recurrent;
  /// [B, S], true = ignore this position of the memory; or undefined.
  at::Tensor memory_key_padding_mask = {};

  /// A cache of the same contents with memory of its own.
  TransformerCache clone() const;

  /// The number of tokens so far, of the longest sequence; 0 without layers. The memory does not count.
  int64_t length() const;

  /// Removes all tokens. The memory stays.
  void reset();

  /// Truncates every cache of self-attention to `length` tokens. A recurrent state can't be truncated: with
  /// mixers, `length` must be 0 or the current length. Errors (c10::Error) are otherwise those of
  /// `KVCache::truncate`; one that a single layer has leaves all layers as they were.
  void truncate(int64_t length);

  /// Replaces sequence b by the previous sequence sequences[b] in every part; see `KVCache::select`. An error
  /// that a single layer has leaves all layers as they were.
  void select(const at::Tensor& sequences);
};

}  // namespace attend
