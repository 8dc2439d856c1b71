// Training in bfloat16: against ATen's, and against ours in float32.
#include "sides.h"

namespace attend::benchmarks {
namespace {

Sides training_sides(bool against_ours) {
  const auto sizes = Sizes::self(8, 2048, 64);
  const auto in = Inputs(sizes, torch::kBFloat16).trained();
  auto in_float = in;
  for (auto* tensor : {&in_float.query, &in_float.key, &in_float.value}) {
    *tensor = tensor->detach().to(torch::kFloat).requires_grad_();
  }
  const auto theirs =
      against_ours ? forward_backward(ours(in_float), in_float.all()) : forward_backward(sdpa(in), in.all());
  return {.ours = forward_backward(ours(in), in.all()), .theirs = theirs, .flops = sizes.training_flops()};
}

}  // namespace

std::vector<Row> half_rows() {
  return {
      {"bfloat16 forward + backward / SDPA", 5, [] { return training_sides(false); }},
      {"bfloat16 forward + backward / ours in float32", 1 / 1.3, [] { return training_sides(true); }},
  };
}

}  // namespace attend::benchmarks
