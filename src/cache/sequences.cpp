#include "cache/sequences.h"

#include "core/checks.h"

namespace attend::cache {

std::vector<int64_t> checked_sequences(const char* function, const at::Tensor& sequences, int64_t batch) {
  checks::check_strided(function, "sequences", sequences);
  checks::check_has_data(function, "sequences", sequences, at::kCPU);
  if (sequences.scalar_type() != at::kLong || sequences.dim() != 1) {
    checks::fail(function, "sequences", "int64 [B']", checks::describe(sequences));
  }
  const auto on_cpu = sequences.cpu().contiguous();
  const auto* const data = on_cpu.const_data_ptr<int64_t>();
  std::vector<int64_t> indices(data, data + on_cpu.size(0));
  for (const auto index : indices) {
    if (index < 0 || index >= batch) {
      checks::fail(function, "sequences", c10::str("indices in 0 ... ", batch - 1), c10::str(index));
    }
  }
  return indices;
}

}  // namespace attend::cache
