#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/mask.h>
#include <torch/arg.h>

#include <cstdint>
#include <vector>

namespace attend {

/// Options for `KVCache`.
struct ATTEND_API KVCacheOptions {
  KVCacheOptions(int64_t num_kv_heads, int64_t head_dim) : num_kv_heads_(num_kv_heads), head_dim_(head_dim) {}

  /// The number of heads of keys and values.
  TORCH_ARG(int64_t, num_kv_heads);
  /// The number of channels of a key.
  TORCH_ARG(int64_t, head_dim);
  /// The number of channels of a value; 0 means `head_dim`. Default: 0.
  TORCH_ARG(int64_t, value_head_dim) = 0;
  /// The number of sequences. Default: 1.
  TORCH_ARG(int64_t, batch) = 1;
  /// The largest number of tokens of each sequence that the cache keeps. Default: 2048.
  TORCH_ARG(int64_t, capacity) = 2048;
  /// The number of tokens that a query attends to, including its own; 0 means all. With a window a sequence
  /// may be of any length: only its last `capacity` tokens are kept, where `capacity` is at least `window`,
  /// and `KVCache::truncate` can remove up to `capacity - window` tokens, or all of them, at any time.
  /// Default: 0.
  TORCH_ARG(int64_t, window) = 0;
  /// The dtype and device of keys and values. Default: float32 on the CPU.
  TORCH_ARG(at::TensorOptions, options) = {};
};

/// The keys and values of the tokens of a batch of sequences so far, for step-by-step decoding. The memory is
/// allocated once, and tokens are appended in place. With a window, twice the capacity is allocated, so that
/// the kept tokens are moved only once in `capacity` tokens. The cache is not differentiable: decode with a
/// torch::NoGradGuard.
///
/// The sequences may differ in length. They are stored right-aligned, since masks and score modifications
/// align the last query with the last key, and the mask that is returned with the keys hides the slots before
/// a shorter sequence. Likewise prompts of different lengths, or tokens for only some of the sequences, are
/// given right-aligned in [B, H, L, D] ("left padding"), and `lengths` states how many of the L tokens belong
/// to each sequence. Outputs at padding are unspecified.
///
/// Errors (c10::Error): a shape, dtype or device that differs from the options; keys or values that require a
/// gradient while gradients are recorded; more tokens than fit into the remaining capacity; truncation to a
/// length that exceeds that of the sequence, or to a length other than 0 at which tokens of the window are no
/// longer stored. A call that fails leaves the cache unchanged.
class ATTEND_API KVCache {
 public:
  explicit KVCache(const KVCacheOptions& options);
  KVCache(KVCache&&) noexcept = default;
  KVCache& operator=(KVCache&&) noexcept = default;

  /// Returns a cache of the same contents with memory of its own.
  KVCache clone() const;

  /// The keys and values that queries attend to, and their mask.
  struct Entries {
    /// [B, Hkv, Lk, D], a view of the cache that is valid until the cache changes.
    at::Tensor key;
    /// [B, Hkv, Lk, Dv], a view of the cache that is valid until the cache changes.
    at::Tensor value;
    /// Which of the keys each query may attend to; undefined if all queries may attend to all keys.
    Mask mask;
  };

  /// Returns the positions of the next `tokens` tokens in their sequences, for rotary embeddings: int64
  /// [tokens], or [B, tokens] if they differ between sequences; 0 at padding. `lengths` has the same meaning
  /// as in `append`.
  at::Tensor positions(int64_t tokens, const at::Tensor& lengths = {}) const;

  /// Appends the keys [B, Hkv, L, D] and values [B, Hkv, L, Dv] of L tokens; for sequence b only the last
  /// lengths[b] tokens. `lengths` is int64 [B] with elements in 0 ... L; if undefined, all L tokens belong to
  /// each sequence. The mask of the result is causal: each of the L queries may attend to the tokens of its
  /// sequence up to its own, within the window. With a window W, the keys are the last W - 1 + L that are
  /// stored, also for L = 0, which changes nothing.
  Entries append(const at::Tensor& key, const at::Tensor& value, const at::Tensor& lengths = {});

  /// Returns the number of keys that `append` would return for `tokens` tokens, or throws its error; for 0
  /// tokens, returns the number of keys that `entries` returns.
  int64_t num_keys(int64_t tokens, const at::Tensor& lengths = {}) const;

  /// Returns all stored tokens, for queries that may attend to every token, as in cross-attention to an
  /// encoded sequence. The mask hides the padding before shorter sequences.
  Entries entries() const;

  /// Removes all tokens.
  void reset();
  /// Removes the tokens of each sequence from index `length` on. With a window, `length` is 0 or one whose
  /// window is still stored.
  void truncate(int64_t length);
  /// Removes the tokens of sequence b from index lengths[b] on; int64 [B].
  void truncate(const at::Tensor& lengths);
  /// Throws the error of `truncate(length)`, if it has one.
  void check_truncate(int64_t length) const;
  /// Replaces sequence b by the sequence that had index sequences[b] before the call, as beam search does.
  /// `sequences` is int64 [B'], in any order and with repetitions; the batch size becomes B'.
  void select(const at::Tensor& sequences);

  /// Returns the length of each sequence, including tokens that are no longer stored: int64 [B] on the CPU.
  at::Tensor lengths() const;
  /// Returns the options, with the value of `value_head_dim` and the current batch size.
  const KVCacheOptions& options() const { return options_; }

 private:
  using Lengths = std::vector<int64_t>;

  KVCache(const KVCache&) = default;

  Lengths checked_lengths(int64_t tokens, const at::Tensor& lengths) const;
  Lengths stored_after_truncation(const Lengths& shorter) const;
  Lengths num_kept(const Lengths& added) const;
  int64_t num_attended(int64_t stored, int64_t queries) const;
  Entries view(const at::Tensor& key, const at::Tensor& value, const Lengths& stored, int64_t attended,
               int64_t queries) const;

  KVCacheOptions options_;
  at::Tensor key_, value_;  // [B, Hkv, slots, D]
  Lengths lengths_;         // tokens of each sequence
  Lengths stored_;          // the last stored_[b] of them are in memory, and all end at slot max(stored_)
};

}  // namespace attend
