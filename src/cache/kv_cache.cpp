#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <attend/kv_cache.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <optional>
#include <utility>

#include "cache/sequences.h"
#include "core/checks.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;
using Lengths = std::vector<int64_t>;

constexpr auto kName = "KVCache";

int64_t largest(const Lengths& lengths) { return lengths.empty() ? 0 : *std::ranges::max_element(lengths); }

bool all_equal(const Lengths& lengths) {
  return std::ranges::adjacent_find(lengths, std::ranges::not_equal_to()) == lengths.end();
}

Lengths sums(const Lengths& left, const Lengths& right) {
  Lengths result(left.size());
  std::ranges::transform(left, right, result.begin(), std::plus());
  return result;
}

Lengths at_most(Lengths lengths, int64_t limit) {
  for (auto& length : lengths) length = std::min(length, limit);
  return lengths;
}

KVCacheOptions checked(KVCacheOptions options) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) fail(kName, name, c10::str("at least ", least), c10::str(value));
  };
  if (options.value_head_dim() == 0) options.value_head_dim(options.head_dim());
  at_least("batch", options.batch(), 0);
  at_least("num_kv_heads", options.num_kv_heads(), 1);
  at_least("head_dim", options.head_dim(), 1);
  at_least("value_head_dim", options.value_head_dim(), 1);
  at_least("window", options.window(), 0);
  at_least("capacity", options.capacity(), std::max<int64_t>(options.window(), 1));
  return options;
}

/// Returns the elements of an int64 [B] tensor, or `limits` if the tensor is undefined. Fails unless element
/// b is in 0 ... limits[b]; `limit_name` describes the limit in the error message.
Lengths per_sequence(const char* argument, const at::Tensor& tensor, const Lengths& limits,
                     const char* limit_name) {
  if (!tensor.defined()) return limits;
  checks::check_strided(kName, argument, tensor);
  checks::check_has_data(kName, argument, tensor, at::kCPU);
  const auto batch = static_cast<int64_t>(limits.size());
  if (tensor.scalar_type() != at::kLong || tensor.dim() != 1 || tensor.size(0) != batch) {
    fail(kName, argument, c10::str("int64 [", batch, "]"), describe(tensor));
  }
  const auto on_cpu = tensor.cpu().contiguous();
  Lengths lengths(on_cpu.const_data_ptr<int64_t>(), on_cpu.const_data_ptr<int64_t>() + batch);
  for (size_t b = 0; b < lengths.size(); ++b) {
    if (lengths[b] < 0 || lengths[b] > limits[b]) {
      fail(kName, argument, c10::str("0 ... ", limits[b], ", ", limit_name),
           c10::str(lengths[b], " for sequence ", b));
    }
  }
  return lengths;
}

/// Fails unless the tensor is [B, Hkv, L, D] with B, Hkv, D, the dtype and the device of the buffer [B, Hkv,
/// slots, D]. If `tokens` is given, L must be `tokens`.
void check_appended(const char* argument, const at::Tensor& tensor, const at::Tensor& buffer,
                    std::optional<int64_t> tokens = {}) {
  checks::check_strided(kName, argument, tensor);
  const bool fits = tensor.dim() == 4 && tensor.size(0) == buffer.size(0) &&
                    tensor.size(1) == buffer.size(1) && tensor.size(2) == tokens.value_or(tensor.size(2)) &&
                    tensor.size(3) == buffer.size(3);
  if (!fits || tensor.scalar_type() != buffer.scalar_type() || tensor.device() != buffer.device()) {
    fail(kName, argument,
         c10::str(checks::dtype_name(buffer.scalar_type()), " [", buffer.size(0), ", ", buffer.size(1), ", ",
                  tokens ? c10::str(*tokens) : "L", ", ", buffer.size(3), "] on ", buffer.device()),
         tensor.device() == buffer.device() ? describe(tensor) : c10::str("a tensor on ", tensor.device()));
  }
}

/// Fails if a gradient of the tensor would be lost, since the cache is not differentiable.
void check_no_gradient(const char* argument, const at::Tensor& tensor) {
  if (at::GradMode::is_enabled() && tensor.requires_grad()) {
    fail(kName, argument,
         "a tensor that requires no gradient, as the cache is not differentiable (use torch::NoGradGuard)",
         "a tensor that requires a gradient");
  }
}

/// A list of copies between buffers. All copies are recorded before any is applied, so that all memory is
/// allocated before anything changes.
class Writes {
 public:
  void record_copy(const at::Tensor& source, const at::Tensor& destination) {
    writes_.push_back({source, destination});
  }

  void record_clear(const at::Tensor& destination) { writes_.push_back({{}, destination}); }

  /// Records the move of `count` tokens of a sequence [Hkv, slots, D] from the slots [from_end - count,
  /// from_end) to [to_end - count, to_end).
  void record_move(const at::Tensor& sequence, int64_t from_end, int64_t to_end, int64_t count) {
    if (count == 0 || from_end == to_end) return;
    const auto source = sequence.slice(1, from_end - count, from_end);
    const bool overlaps = std::abs(from_end - to_end) < count;
    record_copy(overlaps ? source.clone() : source, sequence.slice(1, to_end - count, to_end));
  }

  void apply() const {
    for (const auto& [source, destination] : writes_) {
      if (source.defined()) {
        destination.copy_(source);
      } else {
        destination.zero_();
      }
    }
  }

 private:
  struct Write {
    at::Tensor source;  ///< undefined means zeros
    at::Tensor destination;
  };

  std::vector<Write> writes_;
};

/// Records the copies that fill `to` with the last stored[b] tokens of each sequence b in `from`, where all
/// sequences end at slot `from_end`, followed by the last lengths[b] tokens of `added`. In `to`, too, all
/// sequences end at the same slot. The slots before a shorter sequence are set to zero, since attention also
/// reads masked keys, which could be NaN.
void record_append(Writes& writes, const at::Tensor& from, const Lengths& stored, int64_t from_end,
                   const at::Tensor& added, const Lengths& lengths, const at::Tensor& to) {
  const int64_t tokens = added.size(2), end = largest(sums(stored, lengths));
  const bool is_in_place = from.is_same(to);
  if (is_in_place && from_end + tokens == end && all_equal(lengths)) {
    writes.record_copy(added, to.slice(2, from_end, end));
    return;
  }
  for (size_t n = 0; n < lengths.size(); ++n) {
    const auto b = static_cast<int64_t>(n);
    const auto sequence = to[b];
    const int64_t first_new = end - lengths[n], first = first_new - stored[n];
    if (is_in_place) {
      writes.record_move(sequence, from_end, first_new, stored[n]);
    } else {
      writes.record_copy(from[b].slice(1, from_end - stored[n], from_end),
                         sequence.slice(1, first, first_new));
    }
    writes.record_copy(added[b].slice(1, tokens - lengths[n]), sequence.slice(1, first_new, end));
    writes.record_clear(sequence.slice(1, 0, first));
  }
}

/// Returns `tensor`, or a copy if it shares memory with `buffer`, which is about to change.
at::Tensor independent_of(const at::Tensor& buffer, const at::Tensor& tensor) {
  return tensor.is_alias_of(buffer) ? tensor.clone() : tensor;
}

}  // namespace

KVCache::KVCache(const KVCacheOptions& options)
    : options_(checked(options)),
      lengths_(static_cast<size_t>(options.batch()), 0),
      stored_(static_cast<size_t>(options.batch()), 0) {
  const int64_t slots = options_.window() > 0 ? 2 * options_.capacity() : options_.capacity();
  const auto allocate = [&](int64_t channels) {
    return at::zeros({options_.batch(), options_.num_kv_heads(), slots, channels}, options_.options());
  };
  key_ = allocate(options_.head_dim());
  value_ = allocate(options_.value_head_dim());
  checks::check_floating(kName, "options", key_);
}

KVCache KVCache::clone() const {
  KVCache copy(*this);
  copy.key_ = key_.clone();
  copy.value_ = value_.clone();
  return copy;
}

at::Tensor KVCache::positions(int64_t tokens, const at::Tensor& lengths) const {
  const auto added =
      per_sequence("lengths", lengths, Lengths(lengths_.size(), tokens), "the number of tokens");
  const auto options = at::TensorOptions(at::kLong).device(key_.device());
  auto firsts = sums(lengths_, added);
  for (auto& first : firsts) first -= tokens;
  if (all_equal(firsts)) {
    const int64_t first = firsts.empty() ? 0 : firsts.front();
    return at::arange(first, first + tokens, options).clamp_min_(0);
  }
  const auto first = at::tensor(firsts, at::kLong).to(key_.device()).unsqueeze(-1);
  return (first + at::arange(tokens, options)).clamp_min_(0);
}

KVCache::Entries KVCache::append(const at::Tensor& key, const at::Tensor& value, const at::Tensor& lengths) {
  check_appended("key", key, key_);
  const int64_t tokens = key.size(2);
  check_appended("value", value, value_, tokens);
  check_no_gradient("key", key);
  check_no_gradient("value", value);
  const auto added = checked_lengths(tokens, lengths);
  const int64_t slots = key_.size(2), end = largest(stored_);

  const at::NoGradGuard no_grad;
  const auto stored = num_kept(added);
  auto stored_after = sums(stored, added);
  auto lengths_after = sums(lengths_, added);
  const int64_t end_after = largest(stored_after);
  // If the tokens do not fit into the slots of a windowed cache, this call attends to a temporary buffer of
  // all of them, and the cache stores only the last `capacity`.
  const bool exceeds_slots = end_after > slots;
  Writes writes;
  const auto add_writes = [&](const at::Tensor& buffer, const at::Tensor& tensor) {
    auto joined = buffer;
    if (exceeds_slots) {
      joined = at::zeros({buffer.size(0), buffer.size(1), end_after, buffer.size(3)}, buffer.options());
    }
    record_append(writes, buffer, stored, end, independent_of(buffer, tensor), added, joined);
    if (exceeds_slots) {
      const int64_t capacity = options_.capacity();
      writes.record_copy(joined.slice(2, end_after - capacity), buffer.slice(2, 0, capacity));
    }
    return joined;
  };
  const auto joined_key = add_writes(key_, key), joined_value = add_writes(value_, value);
  auto entries = view(joined_key, joined_value, stored_after, num_attended(end_after, tokens), tokens);
  if (exceeds_slots) stored_after = at_most(stored_after, options_.capacity());
  writes.apply();
  lengths_ = std::move(lengths_after);
  stored_ = std::move(stored_after);
  return entries;
}

KVCache::Entries KVCache::entries() const {
  return view(key_, value_, stored_, /*attended=*/largest(stored_), /*queries=*/0);
}

/// Returns the number of tokens that are added to each sequence. Fails if there is no room for them.
KVCache::Lengths KVCache::checked_lengths(int64_t tokens, const at::Tensor& lengths) const {
  const auto added =
      per_sequence("lengths", lengths, Lengths(lengths_.size(), tokens), "the number of tokens");
  const int64_t slots = key_.size(2), used = largest(lengths_);
  if (options_.window() == 0 && largest(sums(lengths_, added)) > slots) {
    fail(kName, "key",
         c10::str("at most ", slots - used, " more tokens, of a capacity of ", slots, " (", used,
                  " are used)"),
         c10::str(largest(added)));
  }
  return added;
}

/// Returns the number of stored tokens of each sequence that are kept when `added` tokens follow: all, or at
/// most the capacity if all would not fit into the slots of a windowed cache.
KVCache::Lengths KVCache::num_kept(const Lengths& added) const {
  const bool is_full = largest(sums(stored_, added)) > key_.size(2);
  return is_full ? at_most(stored_, options_.capacity()) : stored_;
}

/// Returns how many of the `stored` keys the last `queries` tokens attend to.
int64_t KVCache::num_attended(int64_t stored, int64_t queries) const {
  return options_.window() > 0 ? std::min(stored, options_.window() - 1 + queries) : stored;
}

int64_t KVCache::num_keys(int64_t tokens, const at::Tensor& lengths) const {
  const auto added = checked_lengths(tokens, lengths);
  if (tokens == 0) return largest(stored_);
  return num_attended(largest(sums(num_kept(added), added)), tokens);
}

/// Returns the last `attended` keys and values, with the mask for the last `queries` tokens, or if `queries`
/// is 0 for queries of another sequence.
KVCache::Entries KVCache::view(const at::Tensor& key, const at::Tensor& value, const Lengths& stored,
                               int64_t attended, int64_t queries) const {
  const int64_t end = largest(stored), window = options_.window();
  Mask mask;
  if (queries > 1) mask = causal();
  if (window > 0 && queries > 0 && attended > window) mask = mask & attend::window(window - 1, 0);
  Lengths hidden;
  for (const auto length : stored) hidden.push_back(std::max<int64_t>(attended - length, 0));
  if (largest(hidden) > 0) mask = mask & ~prefix(at::tensor(hidden, at::kLong));
  return {key.slice(2, end - attended, end), value.slice(2, end - attended, end), mask};
}

void KVCache::reset() {
  std::ranges::fill(lengths_, 0);
  std::ranges::fill(stored_, 0);
}

/// Returns how many of the stored tokens of each sequence remain after truncation to the lengths `shorter`.
/// Fails if tokens in the window of a remaining sequence are no longer stored.
KVCache::Lengths KVCache::stored_after_truncation(const Lengths& shorter) const {
  const int64_t window = options_.window();
  Lengths stored;
  for (size_t b = 0; b < shorter.size(); ++b) {
    const int64_t needed = window > 0 ? std::min(shorter[b], window) : shorter[b];
    const int64_t forgotten = lengths_[b] - stored_[b];
    stored.push_back(std::max<int64_t>(shorter[b] - forgotten, 0));
    if (stored[b] < needed) {
      fail(kName, "lengths",
           c10::str("at least ", forgotten + window, ", the least length whose window is still stored"),
           c10::str(shorter[b], " for sequence ", b));
    }
  }
  return stored;
}

void KVCache::truncate(int64_t length) { truncate(at::tensor(Lengths(lengths_.size(), length), at::kLong)); }

void KVCache::check_truncate(int64_t length) const {
  const auto lengths = at::tensor(Lengths(lengths_.size(), length), at::kLong);
  stored_after_truncation(per_sequence("lengths", lengths, lengths_, "the length of the sequence"));
}

void KVCache::truncate(const at::Tensor& lengths) {
  auto shorter = per_sequence("lengths", lengths, lengths_, "the length of the sequence");
  auto stored = stored_after_truncation(shorter);
  const at::NoGradGuard no_grad;
  const int64_t end = largest(stored_), new_end = largest(stored);
  Writes writes;
  for (size_t n = 0; n < stored.size(); ++n) {
    const int64_t from_end = end - (lengths_[n] - shorter[n]);
    for (const auto& buffer : {key_, value_}) {
      const auto sequence = buffer[static_cast<int64_t>(n)];
      writes.record_move(sequence, from_end, new_end, stored[n]);
      writes.record_clear(sequence.slice(1, 0, new_end - stored[n]));
    }
  }
  writes.apply();
  lengths_ = std::move(shorter);
  stored_ = std::move(stored);
}

void KVCache::select(const at::Tensor& sequences) {
  const auto indices = cache::checked_sequences(kName, sequences, options_.batch());
  const auto batch = static_cast<int64_t>(indices.size());
  Lengths lengths, stored;
  for (const auto b : indices) {
    lengths.push_back(lengths_[static_cast<size_t>(b)]);
    stored.push_back(stored_[static_cast<size_t>(b)]);
  }
  const at::NoGradGuard no_grad;
  // If the longest sequence is not selected, the selected sequences are moved so that they end at slot
  // new_end.
  const int64_t end = largest(stored_), new_end = largest(stored);
  Writes writes;
  const auto selected = [&](const at::Tensor& buffer) {
    const auto used = at::index_select(buffer.slice(2, end - new_end, end), 0, sequences.to(buffer.device()));
    const auto result =
        batch == options_.batch()
            ? buffer
            : at::zeros({batch, buffer.size(1), buffer.size(2), buffer.size(3)}, buffer.options());
    writes.record_copy(used, result.slice(2, 0, new_end));
    return result;
  };
  auto key = selected(key_), value = selected(value_);
  writes.apply();
  key_ = std::move(key);
  value_ = std::move(value);
  options_.batch(batch);
  lengths_ = std::move(lengths);
  stored_ = std::move(stored);
}

at::Tensor KVCache::lengths() const { return at::tensor(lengths_, at::kLong); }

}  // namespace attend
