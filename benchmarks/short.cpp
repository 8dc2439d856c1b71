// Short sequences, where the fixed cost of a call counts.
#include "sides.h"

namespace attend::benchmarks {
namespace {

Sides forward_sides(const Sizes& sizes) {
  const Inputs in(sizes);
  return {.ours = forward(ours(in)), .baseline = forward(sdpa(in)), .flops = sizes.forward_flops()};
}

/// nn::Attention, against the same computation in plain ATen.
Sides module_sides() {
  nn::Attention module(nn::AttentionOptions(512, 512, 2048));
  const auto q = torch::randn({1, 10, 512}), k = torch::randn({1, 10, 512}), v = torch::randn({1, 10, 2048});
  const auto plain = [=]() mutable {
    const auto scores =
        torch::matmul(module->q_linear(q), module->k_linear(k).transpose(-2, -1)) / std::sqrt(512.0);
    return torch::matmul(torch::softmax(scores, -1), module->v_linear(v));
  };
  return {.ours = forward([=]() mutable { return module(q, k, v); }), .baseline = forward(plain)};
}

}  // namespace

std::vector<Row> short_rows() {
  return {
      {"short [32, 8, 32, 64] forward / SDPA", 1.2, [] { return forward_sides({32, 8, 8, 32, 32, 64}); }},
      {"short [1, 8, 10, 64] forward / SDPA", 1, [] { return forward_sides({1, 8, 8, 10, 10, 64}); }},
      {"nn::Attention(512, 512, 2048), L = 10 / plain ATen", 0, module_sides},
  };
}

}  // namespace attend::benchmarks
