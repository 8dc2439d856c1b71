// One query over a long cache: bound by reading keys and values.
#include "sides.h"

namespace attend::benchmarks {
namespace {

Sides decode_sides(int64_t kv_heads) {
  const Sizes sizes{1, 32, kv_heads, 1, 4096, 128};
  const Inputs in(sizes);
  return {.ours = forward(ours(in)),
          .theirs = forward(sdpa(in)),
          .flops = sizes.forward_flops(),
          .bytes = static_cast<double>(in.key.nbytes() + in.value.nbytes())};
}

}  // namespace

std::vector<Row> decode_rows() {
  return {
      {"decode 32/8 heads, 4096 keys, D = 128 / SDPA", 3.5, [] { return decode_sides(8); }},
      {"decode 32/32 heads, 4096 keys, D = 128 / SDPA", 0, [] { return decode_sides(32); }},
  };
}

}  // namespace attend::benchmarks
