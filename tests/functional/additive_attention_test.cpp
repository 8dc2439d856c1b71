// Compares additive and bilinear attention, as functions and modules, with the formulas of the papers,
// computed in loops.
#include <attend/additive_attention.h>
#include <attend/nn/additive_attention.h>
#include <attend/nn/bilinear_attention.h>

#include <algorithm>
#include <sstream>

#include "naive_attention.h"
#include "support.h"

namespace attend::testing {
namespace {

torch::Tensor random(at::IntArrayRef sizes, torch::ScalarType dtype = torch::kDouble) {
  return torch::randn(sizes, torch::kDouble).to(dtype);
}

class AdditiveAttentionTest : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

/// Computes the attention of Bahdanau 2014 score by score: the loops of dot-product attention, with the
/// scores of the network.
NaiveAttention::Result naive_additive(
    const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
    const torch::Tensor& weight,
    const std::function<bool(int64_t, int64_t, int64_t, int64_t)>& allowed = [](auto...) { return true; }) {
  const auto q = query.accessor<double, 4>(), k = key.accessor<double, 4>();
  const auto w = weight.accessor<double, 1>();
  const int64_t group = k.size(1) == 0 ? 1 : q.size(1) / k.size(1);
  NaiveAttention naive;
  naive.allowed = allowed;
  naive.score_mod = [=](double, int64_t b, int64_t h, int64_t i, int64_t j) {
    double score = 0;
    for (int64_t a = 0; a < w.size(0); ++a) score += w[a] * std::tanh(q[b][h][i][a] + k[b][h / group][j][a]);
    return score;
  };
  return naive(query, key, value);
}

TEST_F(AdditiveAttentionTest, AgreesWithTheFormula) {
  const std::vector<std::array<int64_t, 7>> sizes = {
      // B, H, Hkv, Lq, Lk, A, Dv
      {1, 1, 1, 1, 1, 1, 1}, {2, 3, 3, 5, 7, 4, 6}, {2, 4, 2, 7, 5, 8, 3}, {0, 1, 1, 2, 3, 4, 5},
      {2, 2, 1, 0, 4, 5, 6}, {2, 2, 1, 3, 0, 5, 6}, {1, 1, 1, 3, 4, 5, 0},
  };
  for (const auto& [b, h, h_kv, l_q, l_k, a, d_v] : sizes) {
    SCOPED_TRACE(c10::str("B ", b, " H ", h, "/", h_kv, " L ", l_q, "/", l_k, " A ", a, " Dv ", d_v));
    const auto query = random({b, h, l_q, a}), key = random({b, h_kv, l_k, a}),
               value = random({b, h_kv, l_k, d_v});
    const auto weight = random({a});
    const auto expected = naive_additive(query, key, value, weight);
    expect_close(additive_attention(query, key, value, weight), expected.output, 1e-13);
    expect_close(additive_attention_weights(query, key, weight), expected.weights, 1e-14);
  }
}

TEST_F(AdditiveAttentionTest, MasksHideKeys) {
  const auto query = random({2, 2, 5, 4}), key = random({2, 2, 7, 4}), value = random({2, 2, 7, 3});
  const auto weight = random({4});
  const auto mask = causal() & key_lengths(torch::tensor({7, 0}));
  const auto expected =
      naive_additive(query, key, value, weight,
                     [](int64_t b, int64_t, int64_t i, int64_t j) { return j <= i + 2 && b == 0; });
  expect_close(additive_attention(query, key, value, weight, {.mask = mask}), expected.output, 1e-13);
  expect_close(additive_attention_weights(query, key, weight, mask), expected.weights, 1e-14);
  // Keys past the lengths are not read.
  auto poisoned = key.clone();
  poisoned[1].fill_(NAN);
  expect_close(additive_attention(query, poisoned, value, weight, {.mask = mask}), expected.output, 1e-13);
}

/// The number of scores is so large that the queries are split into chunks; the expected result is computed
/// at once.
TEST_F(AdditiveAttentionTest, ChunksMakeNoDifference) {
  const int64_t queries = 70, keys = 500,
                hidden = 300;  // 10.5 million arguments of tanh; a chunk has at most 4 million
  const auto leaf = [](at::IntArrayRef sizes) { return random(sizes).requires_grad_(); };
  const auto query = leaf({1, 1, queries, hidden}), key = leaf({1, 1, keys, hidden}),
             value = leaf({1, 1, keys, 3}), weight = leaf({hidden});
  const auto hidden_scores = torch::ones({queries, keys}, torch::kBool).triu(keys - queries + 1);
  const auto scores = (torch::tanh(query.unsqueeze(-2) + key.unsqueeze(-3)) * weight).sum(-1);
  const auto expected =
      torch::matmul(torch::softmax(scores.masked_fill(hidden_scores, -INFINITY), -1), value);
  const auto output = additive_attention(query, key, value, weight, {.mask = causal()});
  expect_close(output, expected, 1e-12);
  const auto gradient = random(output.sizes());
  const std::vector<torch::Tensor> inputs = {query, key, value, weight};
  const auto ours = torch::autograd::grad({output}, inputs, {gradient}),
             theirs = torch::autograd::grad({expected}, inputs, {gradient});
  for (size_t n = 0; n < inputs.size(); ++n) {
    expect_close(ours[n], theirs[n], 1e-12 * std::max(1.0, theirs[n].abs().max().item<double>()));
  }
}

/// Records the peak memory of tensors while it is installed on this thread.
class PeakMemory : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    now_ += size;
    peak_ = std::max(peak_, now_);
  }
  bool memoryProfilingEnabled() const override { return true; }

  double mebibytes() const { return static_cast<double>(peak_) / (1 << 20); }

 private:
  int64_t now_ = 0, peak_ = 0;
};

TEST_F(AdditiveAttentionTest, MemoryDoesNotGrowWithTheQueries) {
  const auto leaf = [](at::IntArrayRef sizes) { return random(sizes, torch::kFloat).requires_grad_(); };
  const auto key = leaf({1024, 64}), value = leaf({1024, 64}), weight = leaf({64}), query = leaf({2048, 64});
  const auto peak_of = [&](int64_t queries) {
    const auto peak = std::make_shared<PeakMemory>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, peak);
    additive_attention(query.slice(0, 0, queries), key, value, weight).sum().backward();
    return peak->mebibytes();
  };
  const double of_one_chunk = peak_of(64);
  EXPECT_GT(of_one_chunk, 16);                   // MiB; the arguments of tanh alone take 16
  EXPECT_LT(peak_of(2048) - of_one_chunk, 128);  // all arguments of tanh would be 512 MiB
}

TEST_F(AdditiveAttentionTest, ChunksSupportTangentsAndDetectChangesInPlace) {
  const auto leaf = [](at::IntArrayRef sizes) { return random(sizes, torch::kFloat).requires_grad_(); };
  const auto query = leaf({2048, 64}), key = leaf({1024, 64}), weight = leaf({64});
  const auto seen = torch::ones({2048, 1024}, torch::kBool);
  const auto output = additive_attention(query, key, key, weight, {.mask = dense(seen)});
  seen.logical_not_();
  EXPECT_NE(error_of([&] { output.sum().backward(); }).find("modified by an inplace operation"),
            std::string::npos);

  const auto level = static_cast<int64_t>(torch::autograd::ForwardADLevel::get_next_idx());
  const auto tangent_of = [&](int64_t rows) {
    const auto dual = at::_make_dual(query, torch::ones_like(query), level).slice(0, 0, rows);
    return std::get<1>(at::_unpack_dual(additive_attention(dual, key, key, weight), level));
  };
  expect_close(tangent_of(2048).slice(0, 0, 8), tangent_of(8), 1e-6);  // computed in chunks, and at once
  torch::autograd::ForwardADLevel::release_idx(static_cast<uint64_t>(level));
}

TEST_F(AdditiveAttentionTest, IsAsAccurateAsItsDtype) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    const auto query = random({2, 2, 9, 16}, dtype), key = random({2, 2, 33, 16}, dtype),
               value = random({2, 2, 33, 8}, dtype), weight = random({16}, dtype);
    const auto plain = [&](torch::ScalarType of) {
      const auto scores =
          torch::matmul(torch::tanh(query.to(of).unsqueeze(-2) + key.to(of).unsqueeze(-3)), weight.to(of));
      return torch::matmul(torch::softmax(scores, -1), value.to(of));
    };
    const auto exact = plain(torch::kDouble);
    const auto output = additive_attention(query, key, value, weight);
    EXPECT_EQ(output.scalar_type(), dtype);
    expect_as_accurate(output, max_difference(plain(dtype), exact), exact, 2, torch::toString(dtype));
  }
}

TEST_F(AdditiveAttentionTest, DropoutDropsWeights) {
  const auto query = random({1, 1, 50, 4}), key = random({1, 1, 60, 4}), weight = random({4});
  const auto value = torch::eye(60, torch::kDouble).view({1, 1, 60, 60});
  const auto weights = additive_attention_weights(query, key, weight);
  const auto dropped = additive_attention(query, key, value, weight, {.dropout_p = 0.25});
  const auto is_kept = dropped != 0;
  expect_close(dropped, torch::where(is_kept, weights / 0.75, 0.0), 1e-14);
  // The tolerance is six standard deviations of the mean of 3000 draws.
  EXPECT_NEAR(is_kept.to(torch::kDouble).mean().item<double>(), 0.75, 6 * std::sqrt(0.25 * 0.75 / 3000));
}

TEST_F(AdditiveAttentionTest, ErrorsNameTheArgument) {
  const auto query = random({2, 5, 4}), key = random({2, 7, 4}), value = random({2, 7, 3});
  const auto error = [&](const torch::Tensor& weight) {
    return error_of([&] { additive_attention(query, key, value, weight); });
  };
  EXPECT_EQ(error({}),
            "attend::additive_attention: score_weight: expected a tensor, got an undefined tensor");
  EXPECT_EQ(error(random({3})),
            "attend::additive_attention: score_weight: expected float64 or float32 [4], got float64 [3]");
  EXPECT_EQ(error(random({4}, torch::kHalf)),
            "attend::additive_attention: score_weight: expected float64 or float32 [4], got float16 [4]");
  EXPECT_EQ(error_of([&] { additive_attention(query, random({2, 7, 5}), value, random({4})); }),
            "attend::additive_attention: key: expected the query's last dimension, 4, got float64 [2, 7, 5]");
}

// ---- the modules

TEST_F(AdditiveAttentionTest, ModuleProjectsQueriesAndKeys) {
  nn::AdditiveAttention module(nn::AdditiveAttentionOptions(3, 4, 6).bias(true));
  module->to(torch::kDouble);
  const auto q = random({2, 5, 3}), k = random({2, 7, 4}), v = random({2, 7, 8});
  const auto expected =
      naive_additive(module->q_linear(q).unsqueeze(1).detach(), module->k_linear(k).unsqueeze(1).detach(),
                     v.unsqueeze(1), module->score_weight.detach());
  expect_close(module(q, k, v), expected.output.squeeze(1), 1e-13);
  expect_close(module->weights(q, k), expected.weights.squeeze(1), 1e-14);
  expect_close(module(q[0], k[0], v[0]), expected.output[0][0], 1e-13);
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& parameter : module->named_parameters())
    shapes[parameter.key()] = parameter.value().sizes().vec();
  const std::map<std::string, std::vector<int64_t>> names = {{"score_weight", {6}},
                                                             {"q_linear.weight", {6, 3}},
                                                             {"q_linear.bias", {6}},
                                                             {"k_linear.weight", {6, 4}}};
  EXPECT_EQ(shapes, names);
}

TEST_F(AdditiveAttentionTest, BilinearScoresAreABilinearForm) {
  nn::BilinearAttention module(nn::BilinearAttentionOptions(3, 4).scale(0.5));
  module->to(torch::kDouble);
  const auto q = random({2, 5, 3}), k = random({2, 7, 4}), v = random({2, 7, 8});
  // k^T W q
  const auto scores = torch::einsum("bja,ac,bic->bij", {k, module->q_linear->weight, q});
  const auto weights = torch::softmax(0.5 * scores, -1);
  expect_close(module->weights(q, k), weights, 1e-14);
  expect_close(module(q, k, v), torch::matmul(weights, v), 1e-13);
  const auto allowed = torch::ones({5, 7}, torch::kBool).tril(2);
  expect_close(module(q, k, v, causal()),
               torch::matmul(torch::softmax((0.5 * scores).masked_fill(~allowed, -INFINITY), -1), v), 1e-13);
}

TEST_F(AdditiveAttentionTest, ModulesGradientsAgreeWithCentralDifferences) {
  nn::AdditiveAttention additive(2, 3, 4);
  nn::BilinearAttention bilinear(2, 3);
  additive->to(torch::kDouble);
  bilinear->to(torch::kDouble);
  const auto q = random({2, 3, 2}).requires_grad_(), k = random({2, 4, 3}).requires_grad_(),
             v = random({2, 4, 2}).requires_grad_();
  const auto check = [&](auto& module) {
    auto inputs = module->parameters();
    inputs.insert(inputs.end(), {q, k, v});
    expect_gradients([&] { return module(q, k, v, causal()).sin().sum(); }, inputs);
  };
  check(additive);
  check(bilinear);
}

/// The target of each query is the value whose key is the query's neighbour on a ring, which no dot product
/// of query and key determines.
TEST_F(AdditiveAttentionTest, ModulesLearn) {
  nn::AdditiveAttention additive(8, 8, 32);
  nn::BilinearAttention bilinear(8, 8);
  const auto k = torch::eye(8).expand({4, 8, 8}), v = torch::randn({4, 8, 3});
  const auto q = torch::eye(8).roll(1, 0).expand({4, 8, 8});
  const auto learn = [&](auto& module) {
    torch::optim::Adam optimizer(module->parameters(), torch::optim::AdamOptions(0.05));
    const auto loss = [&] { return torch::mse_loss(module(q, k, v), v); };
    const double before = loss().template item<double>();
    for (int step = 0; step < 150; ++step) {
      optimizer.zero_grad();
      loss().backward();
      optimizer.step();
    }
    EXPECT_LT(loss().template item<double>(), 0.05 * before);
  };
  learn(additive);
  learn(bilinear);
}

TEST_F(AdditiveAttentionTest, ModulesSaveLoadAndPrint) {
  nn::AdditiveAttention module(3, 4, 6), loaded(3, 4, 6);
  std::stringstream stream;
  torch::save(module, stream);
  torch::load(loaded, stream);
  const auto q = torch::randn({5, 3}), k = torch::randn({7, 4}), v = torch::randn({7, 2});
  EXPECT_TRUE(same_bits(loaded(q, k, v), module(q, k, v)));
  std::ostringstream text;
  text << module << nn::BilinearAttention(3, 4);
  EXPECT_NE(text.str().find("attend::nn::AdditiveAttention(d_q=3, d_k=4, d_hidden=6)"), std::string::npos);
  EXPECT_NE(text.str().find("attend::nn::BilinearAttention(d_q=3, d_k=4, scale=1)"), std::string::npos);
}

TEST_F(AdditiveAttentionTest, ModulesErrorsNameTheArgument) {
  EXPECT_EQ(error_of([] { nn::AdditiveAttention(3, 4, 0); }),
            "attend::nn::AdditiveAttention: d_hidden: expected a width of at least 1, got 0");
  EXPECT_EQ(error_of([] { nn::BilinearAttention(nn::BilinearAttentionOptions(3, 4).dropout(2)); }),
            "attend::nn::BilinearAttention: dropout: expected a probability in [0, 1], got 2");
  nn::BilinearAttention module(3, 4);
  const auto q = torch::rand({2, 5, 3}), k = torch::rand({2, 7, 4});
  EXPECT_EQ(error_of([&] { module(q, q, q); }),
            "attend::nn::BilinearAttention: k: expected [B, L, 4], got float32 [2, 5, 3]");
  EXPECT_EQ(error_of([&] { module(q, k, torch::rand({2, 6, 9})); }),
            "attend::nn::BilinearAttention: v: expected the length of k, 7, got float32 [2, 6, 9]");
  EXPECT_EQ(error_of([&] { module(q, k, torch::Tensor()); }),
            "attend::nn::BilinearAttention: v: expected a tensor, got an undefined tensor");
}

}  // namespace
}  // namespace attend::testing
