// Attention of one query over a long cache, whose time is that of reading keys and values.
#include "peak_rates.h"
#include "sides.h"

namespace attend::benchmarks {
namespace {

Sizes decode_sizes(int64_t kv_heads) { return {1, 32, kv_heads, 1, 4096, 128}; }

Sides decode_sides(const Inputs& in) {
  return {.ours = forward(ours(in)),
          .baseline = forward(sdpa(in)),
          .flops = decode_sizes(in.key.size(1)).forward_flops(),
          .bytes = static_cast<double>(in.key.nbytes() + in.value.nbytes())};
}

/// Returns sides whose baseline only reads the keys and values.
Sides read_sides(int64_t kv_heads) {
  const Inputs in(decode_sizes(kv_heads));
  auto sides = decode_sides(in);
  sides.expected = sides.baseline;
  sides.baseline = [in] {
    read(in.key);
    read(in.value);
    return Tensors();
  };
  return sides;
}

}  // namespace

std::vector<Row> decode_rows() {
  return {
      {"decode 32/8 heads, 4096 keys, D = 128 / SDPA", 3.5,
       [] { return decode_sides(Inputs(decode_sizes(8))); }},
      {"decode 32/32 heads, 4096 keys, D = 128 / SDPA", 0,
       [] { return decode_sides(Inputs(decode_sizes(32))); }},
      {"decode 32/8 heads, 4096 keys, D = 128 / reading keys and values", 0.8, [] { return read_sides(8); }},
  };
}

}  // namespace attend::benchmarks
