// NaNs, infinite scores and values near the largest number, where the backends agree.
#include <attend/attention.h>

#include "support.h"

namespace attend::testing {
namespace {

const std::vector<Backend> backends = {Backend::fused, Backend::reference};

TEST(NonFinite, AnInfiniteScoreGivesAnInfiniteLogsumexp) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    for (const int64_t keys : {5, 1000}) {  // with many keys, they are split
      for (const int64_t queries : {1, 3, 100}) {
        torch::manual_seed(0);
        auto query = torch::randn({1, 1, queries, 4}).to(dtype),
             key = torch::randn({1, 1, keys, 4}).to(dtype);
        const double large = dtype == torch::kDouble ? 1e300 : 1e38;
        query[0][0][0].fill_(large);
        key[0][0][2].fill_(large);
        const auto value = torch::randn({1, 1, keys, 4}).to(dtype);
        for (const auto backend : backends) {
          const auto [output, logsumexp] = attention_with_lse(query, key, value, {.backend = backend});
          EXPECT_EQ(logsumexp[0][0][0].item<double>(), std::numeric_limits<double>::infinity());
          EXPECT_TRUE(output[0][0][0].isnan().all().item<bool>());
        }
      }
    }
  }
}

TEST(NonFinite, GradientsOfNaNScoresAreNaNInEveryWeighting) {
  torch::manual_seed(1);
  for (const auto weighting : {Weighting::softmax, Weighting::sigmoid, Weighting::relu}) {
    std::vector<torch::Tensor> is_nan;
    const auto query = torch::randn({1, 1, 7, 8}), key = torch::randn({1, 1, 9, 8}),
               value = torch::randn({1, 1, 9, 8});
    query[0][0][3][1] = std::numeric_limits<double>::quiet_NaN();
    for (const auto backend : backends) {
      const std::vector<torch::Tensor> leaves = {query.clone().requires_grad_(), key.clone().requires_grad_(),
                                                 value.clone().requires_grad_()};
      const auto output =
          attention(leaves[0], leaves[1], leaves[2], {.weighting = weighting, .backend = backend});
      EXPECT_TRUE(output[0][0][3].isnan().all().item<bool>());
      const auto gradients = torch::autograd::grad({output.sum()}, leaves);
      for (const auto& gradient : gradients) is_nan.push_back(gradient.isnan());
    }
    for (size_t n = 0; n < 3; ++n) {
      EXPECT_TRUE(torch::equal(is_nan[n], is_nan[n + 3]))
          << static_cast<int>(weighting) << ", gradient " << n;
    }
  }
}

// What the header states: sums of values overflow from the largest number over the number of keys on.
TEST(NonFinite, ValuesUpToTheLargestNumberOverTheNumberOfKeysDoNotOverflow) {
  constexpr int64_t kKeys = 1000;
  const double largest = std::numeric_limits<float>::max();
  const auto query = torch::zeros({1, 1, 50, 8}), key = torch::zeros({1, 1, kKeys, 8});
  for (const auto backend : backends) {
    const auto mean_of = [&](double value) {
      return attention(query, key, torch::full({1, 1, kKeys, 8}, value), {.backend = backend});
    };
    const double safe = 0.99 * largest / kKeys;
    expect_close(mean_of(safe) / safe, torch::ones({1, 1, 50, 8}), 1e-5);
    const auto beyond = mean_of(0.01 * largest);  // infinite, or the mean
    EXPECT_FALSE(beyond.isnan().any().item<bool>());
    EXPECT_TRUE((beyond.isinf() | ((beyond / (0.01 * largest) - 1).abs() < 1e-5)).all().item<bool>());
  }
}

}  // namespace
}  // namespace attend::testing
