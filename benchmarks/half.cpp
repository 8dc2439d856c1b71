// Attention in bfloat16, against ATen in bfloat16 and against attend in float32.
#include "sides.h"

namespace attend::benchmarks {
namespace {

constexpr Sizes kHalfSizes{1, 8, 8, 2048, 2048, 64};

Sides half_forward_sides(const Sizes& sizes) {
  const Inputs in(sizes, torch::kBFloat16);
  return {.ours = forward(ours(in)),
          .baseline = forward(sdpa(in)),
          .flops = sizes.forward_flops(),
          .bytes = static_cast<double>(in.key.nbytes() + in.value.nbytes()),
          .in_bfloat16 = true};
}

Sides half_training_sides(bool against_float) {
  const auto in = Inputs(kHalfSizes, torch::kBFloat16).trained();
  auto in_float = in;
  for (auto* tensor : {&in_float.query, &in_float.key, &in_float.value}) {
    *tensor = tensor->detach().to(torch::kFloat).requires_grad_();
  }
  const auto baseline =
      against_float ? forward_backward(ours(in_float), in_float.all()) : forward_backward(sdpa(in), in.all());
  return {.ours = forward_backward(ours(in), in.all()),
          .baseline = baseline,
          .flops = kHalfSizes.training_flops(),
          .in_bfloat16 = true};
}

}  // namespace

std::vector<Row> half_rows() {
  return {
      {"bfloat16 forward / SDPA", 0, [] { return half_forward_sides(kHalfSizes); }},
      {"bfloat16 decode 32/8 heads, 4096 keys, D = 128 / SDPA", 0,
       [] { return half_forward_sides({1, 32, 8, 1, 4096, 128}); }},
      {"bfloat16 forward + backward / SDPA", 5, [] { return half_training_sides(false); }},
      {"bfloat16 forward + backward / attend in float32", 1 / 1.3, [] { return half_training_sides(true); }},
  };
}

}  // namespace attend::benchmarks
