// Attention without a mask and causal attention, against ATen's fused kernel.
#include "peak_rates.h"
#include "sides.h"

namespace attend::benchmarks {
namespace {

Sides forward_sides(const Sizes& sizes, bool is_causal) {
  const Inputs in(sizes);
  const AttentionParams params{.mask = is_causal ? causal() : Mask()};
  return {.ours = forward(ours(in, params)),
          .baseline = forward(sdpa(in, {.is_causal = is_causal})),
          .flops = sizes.forward_flops() / (is_causal ? 2 : 1)};
}

Sides training_sides(const Sizes& sizes, bool is_causal) {
  const auto in = Inputs(sizes).trained();
  const AttentionParams params{.mask = is_causal ? causal() : Mask()};
  return {.ours = forward_backward(ours(in, params), in.all()),
          .baseline = forward_backward(sdpa(in, {.is_causal = is_causal}), in.all()),
          .flops = sizes.training_flops() / (is_causal ? 2 : 1)};
}

/// Returns sides whose baseline is a loop of the same number of multiply-adds in registers.
Sides multiply_add_sides(const Sizes& sizes) {
  auto sides = forward_sides(sizes, false);
  sides.expected = sides.baseline;
  sides.baseline = [flops = sides.flops] {
    multiply_add(flops);
    return Tensors();
  };
  return sides;
}

}  // namespace

std::vector<Row> dense_rows() {
  const auto sizes = Sizes::self(8, 2048, 64), wide = Sizes::self(8, 2048, 128),
             longer = Sizes::self(8, 4096, 64), one_head = Sizes::self(1, 4096, 64);
  return {
      {"dense forward, D = 64 / SDPA", 1.1, [=] { return forward_sides(sizes, false); }},
      {"dense forward, D = 128 / SDPA", 1.1, [=] { return forward_sides(wide, false); }},
      {"dense forward, L = 4096 / multiply-adds in registers", 0.75,
       [=] { return multiply_add_sides(longer); }, Threads::one},
      {"dense forward + backward / SDPA", 1.2, [=] { return training_sides(sizes, false); }},
      {"dense forward + backward, B = H = 1, L = 4096 / SDPA", 1.8,
       [=] { return training_sides(one_head, false); }, Threads::all},
      {"causal forward / SDPA", 1.1, [=] { return forward_sides(sizes, true); }},
      {"causal forward + backward / SDPA", 1.2, [=] { return training_sides(sizes, true); }},
  };
}

}  // namespace attend::benchmarks
