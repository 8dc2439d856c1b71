// Tests that gradients of only some inputs have the same bits as those of all inputs, and that the work for
// the other gradients is skipped.
#include <attend/attention.h>

#include <atomic>

#include "support.h"

namespace attend::testing {
namespace {

std::vector<torch::Tensor> leaves(torch::ScalarType dtype, int64_t queries, int64_t keys) {
  const auto make = [&](at::IntArrayRef sizes) { return torch::randn(sizes).to(dtype).requires_grad_(); };
  return {make({2, 4, queries, 40}), make({2, 2, keys, 40}), make({2, 2, keys, 24}),
          make({2, 4, queries, keys})};
}

/// Returns a loss that depends on the output and, with softmax weighting, on the logsumexp.
torch::Tensor loss(const std::vector<torch::Tensor>& in, AttentionParams params) {
  params.score_mod = softcap(4).then(bias(in[3]));
  params.backend = Backend::fused;
  torch::manual_seed(3);  // the seed of dropout
  const auto weigh = [](const torch::Tensor& tensor) {
    return (tensor * torch::linspace(-1, 1, tensor.numel(), tensor.options()).view(tensor.sizes())).sum();
  };
  if (params.weighting != Weighting::softmax) return weigh(attention(in[0], in[1], in[2], params));
  const auto [output, logsumexp] = attention_with_lse(in[0], in[1], in[2], params);
  return weigh(output) + weigh(logsumexp).to(output.scalar_type());
}

TEST(WantedGradients, OfEverySubsetHaveTheBitsOfAll) {
  torch::manual_seed(0);
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const auto weighting : {Weighting::softmax, Weighting::sigmoid, Weighting::relu}) {
      for (const double dropout_p : {0.0, 0.3}) {
        for (const int64_t queries : {3, 150}) {
          const auto in = leaves(dtype, queries, 230);
          const AttentionParams params{.mask = causal(), .dropout_p = dropout_p, .weighting = weighting};
          const auto all = torch::autograd::grad({loss(in, params)}, in);
          for (size_t subset = 1; subset < 16; ++subset) {
            std::vector<torch::Tensor> wanted, expected;
            for (size_t n = 0; n < 4; ++n) {
              if ((subset >> n & 1) == 0) continue;
              wanted.push_back(in[n]);
              expected.push_back(all[n]);
            }
            const auto found = torch::autograd::grad({loss(in, params)}, wanted);
            for (size_t n = 0; n < wanted.size(); ++n) {
              EXPECT_TRUE(same_bits(found[n], expected[n]))
                  << toString(dtype) << " weighting " << static_cast<int>(weighting) << " dropout "
                  << dropout_p << " queries " << queries << " subset " << subset << " gradient " << n;
            }
          }
        }
      }
    }
  }
}

/// Counts how many scores are modified or differentiated.
std::atomic<int64_t> evaluated = 0;

ScoreMod counted() {
  return score_mod([](auto score, Position) {
    ++evaluated;
    return score * 1.5;
  });
}

int64_t count_of(const torch::Tensor& output, const torch::Tensor& leaf) {
  evaluated = 0;
  torch::autograd::grad({output.sum()}, {leaf}, {}, /*retain_graph=*/true);
  return evaluated;
}

TEST(WantedGradients, AValueAloneNeedsNoGradientOfAScore) {
  constexpr int64_t kScores = 2 * 4 * 100 * 100;
  const auto in = leaves(torch::kFloat, 100, 100);
  const auto output = attention(in[0], in[1], in[2], {.score_mod = counted(), .backend = Backend::fused});
  EXPECT_EQ(count_of(output, in[0]), 2 * kScores);
  EXPECT_EQ(count_of(output, in[1]), 2 * kScores);
  EXPECT_EQ(count_of(output, in[2]), kScores);  // the scores are only modified again
  // With a frozen query and key, gradients that are not required are not computed either.
  const auto frozen =
      attention(in[0].detach(), in[1].detach(), in[2], {.score_mod = counted(), .backend = Backend::fused});
  EXPECT_EQ(count_of(frozen, in[2]), kScores);
}

TEST(WantedGradients, OfACallWithoutScoresAreZeros) {
  const auto query = torch::randn({1, 2, 5, 8}).requires_grad_(), key = torch::randn({1, 2, 0, 8}),
             value = torch::randn({1, 2, 0, 8}).requires_grad_();
  const auto output = attention(query, key, value, {.backend = Backend::fused});
  EXPECT_TRUE(torch::equal(torch::autograd::grad({output.sum()}, {query})[0], torch::zeros_like(query)));
}

TEST(DenseMasks, ALambdaIsEvaluatedOncePerScoreInForwardAndBackward) {
  evaluated = 0;
  const auto in = leaves(torch::kFloat, 192, 192);
  const auto everything = mask_mod([](Position) {
    ++evaluated;
    return true;
  });
  const auto output = attention(in[0], in[1], in[2], {.mask = everything, .backend = Backend::fused});
  EXPECT_EQ(evaluated, 2 * 4 * 192 * 192);
  output.sum().backward();
  EXPECT_EQ(evaluated, 2 * 4 * 192 * 192);
}

TEST(DenseMasks, HaveTheBitsOfTheBuiltInMask) {
  for (const int64_t queries : {7, 100, 300}) {
    for (const int64_t keys : {300, 333}) {
      const auto in = leaves(torch::kFloat, queries, keys);
      const auto triangle = torch::ones({queries, keys}, torch::kBool).tril(keys - queries);
      const auto lengths = torch::tensor({keys - 40, keys});
      for (const auto& mask :
           {dense(triangle), dense(triangle.expand({2, 4, queries, keys})),
            dense(triangle.t().contiguous().t()), mask_mod([](Position at) { return at.key <= at.query; })}) {
        const auto ours = torch::autograd::grad({loss(in, {.mask = mask & key_lengths(lengths)})}, in);
        const auto expected =
            torch::autograd::grad({loss(in, {.mask = causal() & key_lengths(lengths)})}, in);
        for (size_t n = 0; n < in.size(); ++n) EXPECT_TRUE(same_bits(ours[n], expected[n]));
      }
    }
  }
}

}  // namespace
}  // namespace attend::testing
