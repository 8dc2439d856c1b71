#include <ATen/ops/index_select.h>
#include <attend/transformer_cache.h>

#include "core/checks.h"

namespace attend {
namespace {

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

void TransformerCache::truncate(int64_t length) {
  for (const auto& state : recurrent) {
    if (length != 0 && length != state.length) {
      checks::fail(
          "TransformerCache", "length",
          c10::str("0 or ", state.length, ", the current length: a mixer's state can't be truncated"),
          c10::str(length));
    }
  }
  for (auto& cache : self) cache.truncate(length);
  if (length != 0) return;
  for (auto& state : recurrent) state = RecurrentState();
}

void TransformerCache::select(const at::Tensor& sequences) {
  for (auto* caches : {&self, &memory}) {
    for (auto& cache : *caches) cache.select(sequences);
  }
  for (auto& state : recurrent) state.select(sequences);
  auto& mask = memory_key_padding_mask;
  const bool has_batch = mask.defined() && mask.dim() > 1;  // a memory without a batch has a mask without one
  if (has_batch) mask = at::index_select(mask, 0, sequences.to(mask.device()));
}

}  // namespace attend
