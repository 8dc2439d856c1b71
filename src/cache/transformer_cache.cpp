#include <ATen/ops/index_select.h>
#include <attend/transformer_cache.h>

#include <algorithm>

#include "cache/sequences.h"
#include "core/checks.h"

namespace attend {
namespace {

constexpr auto kTransformerCache = "TransformerCache";

template <typename Part>
std::vector<Part> cloned(const std::vector<Part>& parts) {
  std::vector<Part> copies;
  copies.reserve(parts.size());
  for (const auto& part : parts) copies.push_back(part.clone());
  return copies;
}

}  // namespace

TransformerCache TransformerCache::clone() const {
  return {.self = cloned(self),
          .memory = cloned(memory),
          .recurrent = cloned(recurrent),
          .memory_key_padding_mask =
              memory_key_padding_mask.defined() ? memory_key_padding_mask.clone() : at::Tensor()};
}

int64_t TransformerCache::length() const {
  if (self.empty()) return recurrent.empty() ? 0 : recurrent.front().length;
  const auto lengths = self.front().lengths();
  return lengths.numel() == 0 ? 0 : lengths.max().item<int64_t>();
}

void TransformerCache::reset() {
  for (auto& cache : self) cache.reset();
  for (auto& state : recurrent) state = RecurrentState();
}

void TransformerCache::truncate(int64_t length) {
  for (const auto& state : recurrent) {
    if (length != 0 && length != state.length) {
      checks::fail(
          kTransformerCache, "length",
          c10::str("0 or ", state.length, ", the current length: a mixer's state can't be truncated"),
          c10::str(length));
    }
  }
  for (const auto& cache : self) cache.check_truncate(length);
  for (auto& cache : self) cache.truncate(length);
  if (length != 0) return;
  for (auto& state : recurrent) state = RecurrentState();
}

void TransformerCache::select(const at::Tensor& sequences) {
  auto& mask = memory_key_padding_mask;
  // The mask of a memory without a batch dimension is [S].
  const bool has_batch = mask.defined() && mask.dim() > 1;
  const auto check = [&](int64_t batch) { cache::checked_sequences(kTransformerCache, sequences, batch); };
  for (const auto* caches : {&self, &memory}) {
    for (const auto& cache : *caches) check(cache.options().batch());
  }
  for (const auto& state : recurrent) {
    if (state.memory.defined()) check(state.memory.size(0));
    if (state.recent.defined()) check(state.recent.size(0));
  }
  if (has_batch) check(mask.size(0));
  for (auto* caches : {&self, &memory}) {
    for (auto& cache : *caches) cache.select(sequences);
  }
  for (auto& state : recurrent) state.select(sequences);
  if (has_batch) mask = at::index_select(mask, 0, sequences.to(mask.device()));
}

}  // namespace attend
