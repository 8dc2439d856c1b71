// Attention with a trained additive bias, against ATen, which has no fused kernel for it.
#include "sides.h"

namespace attend::benchmarks {

std::vector<Row> bias_rows() {
  return {{"bias [1, H, L, L] with gradient, forward + backward / SDPA", 2, [] {
             const auto sizes = Sizes::self(8, 2048, 64);
             const auto in = Inputs(sizes).trained();
             const auto values = torch::randn({1, 8, 2048, 2048}).requires_grad_();
             auto leaves = in.all();
             leaves.push_back(values);
             return Sides{.ours = forward_backward(ours(in, {.score_mod = bias(values)}), leaves),
                          .baseline = forward_backward(sdpa(in, {.attn_mask = values}), leaves),
                          .flops = sizes.training_flops()};
           }}};
}

}  // namespace attend::benchmarks
