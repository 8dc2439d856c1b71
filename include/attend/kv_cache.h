#pragma once

#include <ATen/core/Tensor.h>
#include <attend/export.h>
#include <attend/mask.h>

#include <cstdint>
#include <vector>

namespace attend {

struct KVCacheOptions {
  int64_t batch = 1;         ///< number of sequences
  int64_t num_kv_heads = 1;  ///< heads of keys and values
  int64_t head_dim = 64;     ///< channels of a key
  int64_t value_dim = 0;     ///< channels of a value; 0: those of a key
  int64_t capacity = 2048;   ///< tokens kept of a sequence
  /// Tokens that a query sees, itself included; 0: all. With a window a sequence may be of any length: tokens
  /// that are older than `capacity`, which is at least the window, are forgotten. `truncate` can then take
  /// back capacity - window tokens at any time.
  int64_t window = 0;
  at::TensorOptions tensors = {};  ///< dtype and device of keys and values
};

/// The keys and values of the tokens that were decoded so far, of several sequences, for attention a step at
/// a time. Memory is allocated once (twice the capacity with a window, so that what is kept moves only every
/// `capacity` tokens), and appended to in place. No gradient flows through it: decode with a
/// torch::NoGradGuard.
///
/// The sequences may differ in length: they are stored so that all end at the same place, as masks and score
/// modifications align the last query with the last key, and the mask that goes with the keys hides what
/// comes before a shorter sequence. So tokens that are appended to only some of the sequences, or prompts of
/// different lengths, stand at the end of [B, H, L, D], after padding ("left padding"), and `counts` says how
/// many of the L are a sequence's own; outputs at padding mean nothing.
///
/// Errors (c10::Error): a shape, dtype or device other than the options say; keys or values that require a
/// gradient, while gradients are recorded; tokens beyond the capacity, which the message says; a length to
/// take back to that is longer than the sequence, or no longer in memory.
class ATTEND_API KVCache {
 public:
  explicit KVCache(const KVCacheOptions& options);
  KVCache(KVCache&&) noexcept = default;
  KVCache& operator=(KVCache&&) noexcept = default;

  /// What a step attends to: [B, Hkv, Lk, D], views of the cache that hold until its next change, and which
  /// of them its queries may see.
  struct Entries {
    at::Tensor key, value;
    Mask mask;
  };

  /// Where the next L tokens stand in their sequences, for rotary positions: int64 [L], or [B, L] where that
  /// differs between sequences; 0 for padding.
  at::Tensor positions(int64_t tokens, const at::Tensor& counts = {}) const;

  /// Appends the keys [B, Hkv, L, D] and values [B, Hkv, L, Dv] of L tokens; of sequence b the last
  /// counts[b]. `counts`: int64 [B], each in 0 ... L; default: all. The mask is causal: query i of the L sees
  /// the tokens of its sequence up to its own, within the window.
  Entries append(const at::Tensor& key, const at::Tensor& value, const at::Tensor& counts = {});

  /// How many keys `append` of so many tokens would give, or its error; with none, how many `entries` gives.
  int64_t keys(int64_t tokens, const at::Tensor& counts = {}) const;

  /// All that is kept, for queries that see every token, as of a sequence that was read before; the mask
  /// hides what a shorter sequence lacks.
  Entries entries() const;

  /// Forgets everything.
  void reset();
  /// Takes back what was appended since each sequence had this length; int64 [B] for lengths of their own.
  void truncate(int64_t length);
  void truncate(const at::Tensor& lengths);
  /// Sequence b becomes what sequences[b] was; int64 [B'], which may be another number of them, repeated, in
  /// any order (the beams of a search).
  void select(const at::Tensor& sequences);

  /// The length of each sequence, forgotten tokens included: int64 [B] on the CPU.
  at::Tensor lengths() const;
  const KVCacheOptions& options() const { return options_; }

 private:
  using Counts = std::vector<int64_t>;

  Counts checked_counts(int64_t tokens, const at::Tensor& counts) const;
  Counts kept_beside(const Counts& added) const;
  int64_t seen(int64_t kept, int64_t queries) const;
  Entries view(const at::Tensor& key, const at::Tensor& value, const Counts& kept, int64_t queries) const;

  KVCacheOptions options_;
  at::Tensor key_, value_;  // [B, Hkv, slots, D]
  Counts lengths_;          // of each sequence
  Counts kept_;             // how many of its tokens are in memory, ending where the longest ends
};

}  // namespace attend
