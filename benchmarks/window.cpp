// A sliding window over a long sequence, against ATen, which computes masked scores too.
#include "sides.h"

namespace attend::benchmarks {

std::vector<Row> window_rows() {
  return {{"window of 256 either side, L = 8192, forward / SDPA with a mask", 12, [] {
             constexpr int64_t kLength = 8192, kWidth = 256;
             const auto sizes = Sizes::self(8, kLength, 64);
             const Inputs in(sizes);
             const auto position = torch::arange(kLength);
             const auto mask = (position.unsqueeze(1) - position).abs() <= kWidth;
             return Sides{.ours = forward(ours(in, {.mask = window(kWidth, kWidth)})),
                          .baseline = forward(sdpa(in, {.attn_mask = mask})),
                          .flops = sizes.forward_flops() * mask.to(torch::kDouble).mean().item<double>()};
           }}};
}

}  // namespace attend::benchmarks
