#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <attend/kv_cache.h>

#include <algorithm>
#include <functional>
#include <optional>

#include "core/checks.h"

namespace attend {
namespace {

using checks::describe;
using checks::fail;
using Counts = std::vector<int64_t>;

constexpr auto kName = "KVCache";

int64_t largest(const Counts& counts) { return counts.empty() ? 0 : *std::ranges::max_element(counts); }

bool all_equal(const Counts& counts) {
  return std::ranges::adjacent_find(counts, std::ranges::not_equal_to()) == counts.end();
}

Counts sums(const Counts& left, const Counts& right) {
  Counts result(left.size());
  std::ranges::transform(left, right, result.begin(), std::plus());
  return result;
}

Counts at_most(Counts counts, int64_t limit) {
  for (auto& count : counts) count = std::min(count, limit);
  return counts;
}

KVCacheOptions checked(KVCacheOptions options) {
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    if (value < least) fail(kName, name, c10::str("at least ", least), c10::str(value));
  };
  if (options.value_dim == 0) options.value_dim = options.head_dim;
  at_least("batch", options.batch, 0);
  at_least("num_kv_heads", options.num_kv_heads, 1);
  at_least("head_dim", options.head_dim, 1);
  at_least("value_dim", options.value_dim, 1);
  at_least("window", options.window, 0);
  at_least("capacity", options.capacity, std::max<int64_t>(options.window, 1));
  return options;
}

/// One number per sequence, on the CPU; `all` for each where the tensor is undefined.
Counts per_sequence(const char* argument, const at::Tensor& tensor, const Counts& limits,
                    const char* limited_by) {
  if (!tensor.defined()) return limits;
  checks::is_strided(kName, argument, tensor);
  const auto batch = static_cast<int64_t>(limits.size());
  if (tensor.scalar_type() != at::kLong || tensor.dim() != 1 || tensor.size(0) != batch) {
    fail(kName, argument, c10::str("int64 [", batch, "]"), describe(tensor));
  }
  const auto on_cpu = tensor.cpu().contiguous();
  Counts counts(on_cpu.const_data_ptr<int64_t>(), on_cpu.const_data_ptr<int64_t>() + batch);
  for (size_t b = 0; b < counts.size(); ++b) {
    if (counts[b] < 0 || counts[b] > limits[b]) {
      fail(kName, argument, c10::str("0 ... ", limits[b], ", ", limited_by),
           c10::str(counts[b], " for sequence ", b));
    }
  }
  return counts;
}

/// `tokens`: of the key, of which there may be any number; of the value, as many as of the key.
void check_new(const char* argument, const at::Tensor& tensor, const at::Tensor& slots,
               std::optional<int64_t> tokens = {}) {
  checks::is_strided(kName, argument, tensor);
  const bool fits = tensor.dim() == 4 && tensor.size(0) == slots.size(0) && tensor.size(1) == slots.size(1) &&
                    tensor.size(2) == tokens.value_or(tensor.size(2)) && tensor.size(3) == slots.size(3);
  if (!fits || tensor.scalar_type() != slots.scalar_type() || tensor.device() != slots.device()) {
    fail(kName, argument,
         c10::str(checks::dtype_name(slots.scalar_type()), " [", slots.size(0), ", ", slots.size(1), ", ",
                  tokens ? c10::str(*tokens) : "L", ", ", slots.size(3), "] on ", slots.device()),
         tensor.device() == slots.device() ? describe(tensor) : c10::str("one on ", tensor.device()));
  }
}

/// A gradient would end here without a word.
void check_no_gradient(const char* argument, const at::Tensor& tensor) {
  if (at::GradMode::is_enabled() && tensor.requires_grad()) {
    fail(kName, argument, "no gradients to be recorded (torch::NoGradGuard), as none flow through a cache",
         "one that requires them");
  }
}

/// Moves `count` tokens of a sequence [Hkv, slots, D], which end at a slot, to where they end at another.
void move(const at::Tensor& from, int64_t from_end, const at::Tensor& to, int64_t to_end, int64_t count) {
  if (count == 0 || (from_end == to_end && from.is_alias_of(to))) return;
  const auto source = from.slice(1, from_end - count, from_end);
  to.slice(1, to_end - count, to_end).copy_(from.is_alias_of(to) ? source.clone() : source);
}

/// Padding is masked, but not unread: what was there could hold a NaN.
void clear_before(const at::Tensor& sequence, int64_t first) { sequence.slice(1, 0, first).zero_(); }

/// Of each sequence b in `from`, the last kept[b] tokens, followed by the last counts[b] of `added`, so that
/// all end at the same slot of `to`.
void join(const at::Tensor& from, const Counts& kept, int64_t from_end, const at::Tensor& added,
          const Counts& counts, const at::Tensor& to) {
  const int64_t tokens = added.size(2), end = largest(sums(kept, counts));
  if (from.is_alias_of(to) && from_end + tokens == end && all_equal(counts)) {
    to.slice(2, from_end, end).copy_(added);
    return;
  }
  for (size_t n = 0; n < counts.size(); ++n) {
    const auto b = static_cast<int64_t>(n);
    move(from[b], from_end, to[b], end - counts[n], kept[n]);
    move(added[b], tokens, to[b], end, counts[n]);
    clear_before(to[b], end - counts[n] - kept[n]);
  }
}

}  // namespace

KVCache::KVCache(const KVCacheOptions& options)
    : options_(checked(options)),
      lengths_(static_cast<size_t>(options.batch), 0),
      kept_(static_cast<size_t>(options.batch), 0) {
  const int64_t slots = options_.window > 0 ? 2 * options_.capacity : options_.capacity;
  const auto allocate = [&](int64_t channels) {
    return at::zeros({options_.batch, options_.num_kv_heads, slots, channels}, options_.tensors);
  };
  key_ = allocate(options_.head_dim);
  value_ = allocate(options_.value_dim);
  checks::is_floating(kName, "tensors", key_);
}

at::Tensor KVCache::positions(int64_t tokens, const at::Tensor& counts) const {
  const auto added = per_sequence("counts", counts, Counts(lengths_.size(), tokens), "the number of tokens");
  const auto options = at::TensorOptions(at::kLong).device(key_.device());
  auto firsts = sums(lengths_, added);  // of the sequence's end; the first of the tokens is that many before
  for (auto& first : firsts) first -= tokens;
  if (all_equal(firsts)) {
    const int64_t first = firsts.empty() ? 0 : firsts.front();
    return at::arange(first, first + tokens, options).clamp_min_(0);
  }
  const auto first = at::tensor(firsts, at::kLong).to(key_.device()).unsqueeze(-1);
  return (first + at::arange(tokens, options)).clamp_min_(0);
}

KVCache::Entries KVCache::append(const at::Tensor& key, const at::Tensor& value, const at::Tensor& counts) {
  check_new("key", key, key_);
  const int64_t tokens = key.size(2);
  check_new("value", value, value_, tokens);
  check_no_gradient("key", key);
  check_no_gradient("value", value);
  const auto added = checked_counts(tokens, counts);
  const int64_t slots = key_.size(2), end = largest(kept_);

  const at::NoGradGuard no_grad;
  const auto kept = kept_beside(added);
  const auto after = sums(kept, added);
  lengths_ = sums(lengths_, added);
  if (largest(after) <= slots) {
    join(key_, kept, end, key, added, key_);
    join(value_, kept, end, value, added, value_);
    kept_ = after;
    return view(key_, value_, kept_, tokens);
  }
  // More tokens than are ever kept: they attend to one another outside of the cache, which keeps the last
  // ones.
  kept_ = at_most(after, options_.capacity);
  const auto outside = [&](const at::Tensor& buffer, const at::Tensor& tensor) {
    const int64_t length = largest(after);
    auto joined = at::zeros({buffer.size(0), buffer.size(1), length, buffer.size(3)}, buffer.options());
    join(buffer, kept, end, tensor, added, joined);
    buffer.slice(2, 0, options_.capacity).copy_(joined.slice(2, length - options_.capacity));
    return joined;
  };
  return view(outside(key_, key), outside(value_, value), after, tokens);
}

KVCache::Entries KVCache::entries() const { return view(key_, value_, kept_, /*queries=*/0); }

/// How many of so many tokens come to each sequence; fails where there is no room for them.
KVCache::Counts KVCache::checked_counts(int64_t tokens, const at::Tensor& counts) const {
  const auto added = per_sequence("counts", counts, Counts(lengths_.size(), tokens), "the number of tokens");
  const int64_t slots = key_.size(2), used = largest(lengths_);
  if (options_.window == 0 && largest(sums(lengths_, added)) > slots) {
    fail(kName, "key",
         c10::str("at most ", slots - used, " more tokens, of a capacity of ", slots, " (", used,
                  " are used)"),
         c10::str(largest(added)));
  }
  return added;
}

/// What is kept of each sequence when tokens are added: less where a window's slots are all in use.
KVCache::Counts KVCache::kept_beside(const Counts& added) const {
  const bool is_full = largest(sums(kept_, added)) > key_.size(2);
  return is_full ? at_most(kept_, options_.capacity) : kept_;
}

/// Of so many kept tokens, those that `queries` of the last, or others where there are none, attend to.
int64_t KVCache::seen(int64_t kept, int64_t queries) const {
  const bool is_limited = options_.window > 0 && queries > 0;
  return is_limited ? std::min(kept, options_.window - 1 + queries) : kept;
}

int64_t KVCache::keys(int64_t tokens, const at::Tensor& counts) const {
  if (tokens == 0) return largest(kept_);
  const auto added = checked_counts(tokens, counts);
  return seen(largest(sums(kept_beside(added), added)), tokens);
}

/// What `queries` of the last tokens attend to; with none, what others attend to.
KVCache::Entries KVCache::view(const at::Tensor& key, const at::Tensor& value, const Counts& kept,
                               int64_t queries) const {
  const int64_t end = largest(kept), window = options_.window;
  const int64_t seen = this->seen(end, queries);
  Mask mask;
  if (queries > 1) mask = causal();
  if (window > 0 && queries > 0 && seen > window) mask = mask & attend::window(window - 1, 0);
  Counts hidden;
  for (const auto count : kept) hidden.push_back(std::max<int64_t>(seen - count, 0));
  if (largest(hidden) > 0) mask = mask & ~prefix(at::tensor(hidden, at::kLong));
  return {key.slice(2, end - seen, end), value.slice(2, end - seen, end), mask};
}

void KVCache::reset() {
  std::ranges::fill(lengths_, 0);
  std::ranges::fill(kept_, 0);
}

void KVCache::truncate(int64_t length) { truncate(at::tensor(Counts(lengths_.size(), length), at::kLong)); }

void KVCache::truncate(const at::Tensor& lengths) {
  const auto shorter = per_sequence("lengths", lengths, lengths_, "the length of the sequence");
  auto kept = kept_;
  for (size_t b = 0; b < kept.size(); ++b) {
    kept[b] -= lengths_[b] - shorter[b];
    const int64_t needed = options_.window > 0 ? std::min(shorter[b], options_.window) : shorter[b];
    if (kept[b] < needed) {
      const int64_t least = lengths_[b] - kept_[b] + options_.window;
      fail(kName, "lengths", c10::str("at least ", least, ", whose window is still kept"),
           c10::str(shorter[b], " for sequence ", b));
    }
  }
  const at::NoGradGuard no_grad;
  const int64_t end = largest(kept_), new_end = largest(kept);
  for (size_t n = 0; n < kept.size(); ++n) {
    const auto b = static_cast<int64_t>(n);
    const int64_t from_end = end - (lengths_[n] - shorter[n]);
    move(key_[b], from_end, key_[b], new_end, kept[n]);
    move(value_[b], from_end, value_[b], new_end, kept[n]);
    clear_before(key_[b], new_end - kept[n]);
    clear_before(value_[b], new_end - kept[n]);
  }
  lengths_ = shorter;
  kept_ = kept;
}

void KVCache::select(const at::Tensor& sequences) {
  checks::is_strided(kName, "sequences", sequences);
  if (sequences.scalar_type() != at::kLong || sequences.dim() != 1) {
    fail(kName, "sequences", "int64 [B']", describe(sequences));
  }
  const auto on_cpu = sequences.cpu().contiguous();
  const auto batch = on_cpu.size(0);
  const std::vector<int64_t> chosen(on_cpu.const_data_ptr<int64_t>(),
                                    on_cpu.const_data_ptr<int64_t>() + batch);
  Counts lengths, kept;
  for (const auto b : chosen) {
    if (b < 0 || b >= options_.batch) {
      fail(kName, "sequences", c10::str("numbers in 0 ... ", options_.batch - 1), c10::str(b));
    }
    lengths.push_back(lengths_[static_cast<size_t>(b)]);
    kept.push_back(kept_[static_cast<size_t>(b)]);
  }
  const at::NoGradGuard no_grad;
  // The longest sequence may not be among the chosen: what is left moves to where it then ends.
  const int64_t end = largest(kept_), new_end = largest(kept);
  const auto select_in = [&](at::Tensor& buffer) {
    const auto used = at::index_select(buffer.slice(2, end - new_end, end), 0, on_cpu.to(buffer.device()));
    if (batch != options_.batch) {
      buffer = at::zeros({batch, buffer.size(1), buffer.size(2), buffer.size(3)}, buffer.options());
    }
    buffer.slice(2, 0, new_end).copy_(used);
  };
  select_in(key_);
  select_in(value_);
  options_.batch = batch;
  lengths_ = lengths;
  kept_ = kept;
}

at::Tensor KVCache::lengths() const { return at::tensor(lengths_, at::kLong); }

}  // namespace attend
