// Attention with score modifications and lambdas, against attend without them or with the built-in mask.
#include "sides.h"

namespace attend::benchmarks {
namespace {

const auto alibi_lambda = [](double slope) {
  return score_mod([=](auto score, Position at) { return score - slope * std::abs(at.query - at.key); });
};
const auto softcap_lambda = [](double cap) {
  return score_mod([=](auto score, Position) { return cap * attend::tanh(score / cap); });
};

/// Returns a row that times attend with `mod` against attend without a score modification. The result must
/// equal that of the score modification `same`.
Row row(const std::string& name, double target, const ScoreMod& mod, const ScoreMod& same, bool trains) {
  return {name + (trains ? ", forward + backward / attend without" : ", forward / attend without"), target,
          [=] {
            const auto sizes = Sizes::self(8, 2048, 64);
            const auto in = trains ? Inputs(sizes).trained() : Inputs(sizes);
            const auto side = [=](const ScoreMod& score_mod) {
              const auto attention = ours(in, {.score_mod = score_mod});
              return trains ? forward_backward(attention, in.all()) : forward(attention);
            };
            return Sides{.ours = side(mod),
                         .baseline = side({}),
                         .expected = side(same),
                         .flops = trains ? sizes.training_flops() : sizes.forward_flops()};
          }};
}

Row mask_row() {
  return {"causal as a lambda, forward / causal()", 0, [] {
            const auto sizes = Sizes::self(8, 2048, 64);
            const Inputs in(sizes);
            const auto lambda = mask_mod([](Position at) { return at.key <= at.query; });
            return Sides{.ours = forward(ours(in, {.mask = lambda})),
                         .baseline = forward(ours(in, {.mask = causal()})),
                         .flops = sizes.forward_flops() / 2};
          }};
}

}  // namespace

std::vector<Row> score_mod_rows() {
  const auto slopes = torch::full({8}, 0.01);
  std::vector<Row> rows;
  for (const bool trains : {false, true}) {
    rows.push_back(row("ALiBi", 0, alibi(slopes), alibi(slopes), trains));
    rows.push_back(row("ALiBi as a lambda", 1 / 1.3, alibi_lambda(0.01), alibi(slopes), trains));
    rows.push_back(row("softcap", 0, softcap(20), softcap(20), trains));
    rows.push_back(row("softcap as a lambda", 1 / 2.6, softcap_lambda(20), softcap(20), trains));
  }
  rows.push_back(mask_row());
  return rows;
}

}  // namespace attend::benchmarks
