// Attention with a dense mask, against attend with the equivalent built-in mask.
#include "sides.h"

namespace attend::benchmarks {
namespace {

Row dense_mask_row(const std::string& name, double target, bool is_triangle, bool trains) {
  return {name, target, [=] {
            const auto sizes = Sizes::self(8, 1024, 64);
            const auto in = trains ? Inputs(sizes).trained() : Inputs(sizes);
            const auto all = torch::ones({1024, 1024}, torch::kBool);
            const auto side = [=](const Mask& mask) {
              const auto attention = ours(in, {.mask = mask});
              return trains ? forward_backward(attention, in.all()) : forward(attention);
            };
            const double flops = trains ? sizes.training_flops() : sizes.forward_flops();
            return Sides{.ours = side(dense(is_triangle ? all.tril() : all)),
                         .baseline = side(is_triangle ? causal() : Mask()),
                         .flops = is_triangle ? flops / 2 : flops};
          }};
}

}  // namespace

std::vector<Row> mask_rows() {
  constexpr double kAll = 1 / 1.03, kTriangle = 1 / 1.05;
  return {dense_mask_row("dense mask that hides nothing, forward / no mask", kAll, false, false),
          dense_mask_row("dense mask that hides nothing, forward + backward / no mask", kAll, false, true),
          dense_mask_row("triangular dense mask, forward / causal()", kTriangle, true, false),
          dense_mask_row("triangular dense mask, forward + backward / causal()", kTriangle, true, true)};
}

}  // namespace attend::benchmarks
