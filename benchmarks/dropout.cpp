// Dropout of 0.1, against ATen and against attend without dropout.
#include "sides.h"

namespace attend::benchmarks {
namespace {

const Sizes kSizes = Sizes::self(8, 2048, 64);
constexpr double kP = 0.1;

/// Returns an attention that drops the same weights on every run.
Attention seeded(Attention attention) {
  return [attention] {
    torch::manual_seed(1);
    return attention();
  };
}

Attention with_dropout(const Inputs& in, Backend backend = Backend::automatic) {
  return seeded(ours(in, {.dropout_p = kP, .backend = backend}));
}

/// ATen drops other weights, so the expected result is that of attend's reference.
Sides forward_sides(const Attention& baseline, const Inputs& in) {
  return {.ours = forward(with_dropout(in)),
          .baseline = forward(baseline),
          .expected = forward(with_dropout(in, Backend::reference)),
          .flops = kSizes.forward_flops()};
}

Sides training_sides(const Attention& baseline, const Inputs& in) {
  return {.ours = forward_backward(with_dropout(in), in.all()),
          .baseline = forward_backward(baseline, in.all()),
          .expected = forward_backward(with_dropout(in, Backend::reference), in.all()),
          .flops = kSizes.training_flops()};
}

}  // namespace

std::vector<Row> dropout_rows() {
  return {
      {"dropout 0.1 forward / SDPA", 9,
       [] {
         const Inputs in(kSizes);
         return forward_sides(sdpa(in, {.dropout_p = kP}), in);
       }},
      {"dropout 0.1 forward + backward / SDPA", 4,
       [] {
         const auto in = Inputs(kSizes).trained();
         return training_sides(sdpa(in, {.dropout_p = kP}), in);
       }},
      {"dropout 0.1 forward / attend without dropout", 1 / 1.25,
       [] {
         const Inputs in(kSizes);
         return forward_sides(ours(in), in);
       }},
      {"dropout 0.1 forward + backward / attend without dropout", 1 / 1.25,
       [] {
         const auto in = Inputs(kSizes).trained();
         return training_sides(ours(in), in);
       }},
  };
}

}  // namespace attend::benchmarks
