// Dropout of 0.1: against ATen, and against what the same call takes without it.
#include "sides.h"

namespace attend::benchmarks {
namespace {

const Sizes kSizes = Sizes::self(8, 2048, 64);
constexpr double kP = 0.1;

/// The same weights are dropped on every run.
Attention seeded(Attention attention) {
  return [attention] {
    torch::manual_seed(1);
    return attention();
  };
}

Attention dropping(const Inputs& in, Backend backend = Backend::automatic) {
  return seeded(ours(in, {.dropout_p = kP, .backend = backend}));
}

/// ATen drops other weights: what ours must give is the reference's result.
Sides forward_sides(const Attention& theirs, const Inputs& in) {
  return {.ours = forward(dropping(in)),
          .theirs = forward(theirs),
          .expected = forward(dropping(in, Backend::reference)),
          .flops = kSizes.forward_flops()};
}

Sides training_sides(const Attention& theirs, const Inputs& in) {
  return {.ours = forward_backward(dropping(in), in.all()),
          .theirs = forward_backward(theirs, in.all()),
          .expected = forward_backward(dropping(in, Backend::reference), in.all()),
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
      {"dropout 0.1 forward / ours without", 1 / 1.25,
       [] {
         const Inputs in(kSizes);
         return forward_sides(ours(in), in);
       }},
      {"dropout 0.1 forward + backward / ours without", 1 / 1.25,
       [] {
         const auto in = Inputs(kSizes).trained();
         return training_sides(ours(in), in);
       }},
  };
}

}  // namespace attend::benchmarks
