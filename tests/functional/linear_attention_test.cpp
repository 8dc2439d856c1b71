// Tests every behaviour that linear_attention.h documents, against loops that compute the formulas of the
// papers, and against central differences.
#include <attend/attention.h>
#include <attend/linear_attention.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <limits>

#include "linear_forms.h"
#include "naive_linear_attention.h"
#include "support.h"

namespace attend::testing {
namespace {

torch::Tensor random(at::IntArrayRef sizes) { return torch::randn(sizes, torch::kDouble); }

/// Returns the logarithms of random decays between 0.5 and 1.
torch::Tensor random_decay(at::IntArrayRef sizes) {
  return (0.5 + 0.5 * torch::rand(sizes, torch::kDouble)).log();
}

torch::Tensor normal_rows(at::IntArrayRef sizes) {
  return torch::nn::functional::normalize(random(sizes),
                                          torch::nn::functional::NormalizeFuncOptions().dim(-1));
}

const std::vector<std::pair<std::string, LinearForm>> forms = {{"automatic", LinearForm::automatic},
                                                               {"chunked", LinearForm::chunked},
                                                               {"recurrent", LinearForm::recurrent}};

void expect_naive(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                  LinearAttentionParams params, const torch::Tensor& expected, const std::string& what) {
  for (const auto& [name, form] : forms) {
    const auto output = linear_attention_as(form, query, key, value, params).output;
    expect_close(output, expected, 1e-11, what + ", " + name);
  }
}

/// Returns the parameters restricted to the steps [begin, end).
LinearAttentionParams part(LinearAttentionParams params, int64_t begin, int64_t end) {
  if (params.log_decay.defined() && params.log_decay.dim() > 1) {
    params.log_decay = params.log_decay.slice(2, begin, end);
  }
  if (params.beta.defined()) params.beta = params.beta.slice(2, begin, end);
  return params;
}

class LinearAttention : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

// ---- the papers' definitions

TEST_F(LinearAttention, IsKatharopoulosLinearAttention) {
  for (const bool is_causal : {true, false}) {
    for (const auto map : {FeatureMap::elu_plus_one, FeatureMap::relu}) {
      for (const int64_t length : {1, 7, 65, 130}) {
        const auto q = random({2, 3, length, 5}), k = random({2, 3, length, 5}),
                   v = random({2, 3, length, 4});
        const auto phi = [&](const torch::Tensor& x) {
          return map == FeatureMap::relu ? x.clamp_min(0) : torch::where(x > 0, x + 1, x.exp());
        };
        const NaiveLinearAttention naive{.normalize = true, .is_causal = is_causal};
        expect_naive(q, k, v, {.feature_map = map, .is_causal = is_causal}, naive(phi(q), phi(k), v),
                     c10::str("length ", length, ", causal ", is_causal));
      }
    }
  }
}

TEST_F(LinearAttention, IsRetentionAndLightningAttention) {
  const auto q = random({2, 4, 70, 6}), k = random({2, 4, 70, 6}), v = random({2, 4, 70, 8});
  const auto gamma = 1 - torch::exp2(-5 - torch::arange(4, torch::kDouble));  // Sun 2023, equation 8
  const auto decay = gamma.view({1, 4, 1, 1}).expand({2, 4, 70, 6});
  const NaiveLinearAttention retention{.scale = 1 / std::sqrt(6.0), .decay = decay};
  expect_naive(
      q, k, v,
      {.feature_map = FeatureMap::identity, .normalize = false, .is_causal = true, .log_decay = gamma.log()},
      retention(q, k, v), "retention");
  const NaiveLinearAttention lightning{.decay = decay};
  expect_naive(q, k, v,
               {.feature_map = FeatureMap::identity,
                .normalize = false,
                .is_causal = true,
                .log_decay = gamma.log(),
                .scale = 1},
               lightning(q, k, v), "lightning attention");
}

TEST_F(LinearAttention, IsGatedLinearAttention) {
  const auto q = random({2, 2, 70, 6}), k = random({2, 2, 70, 6}), v = random({2, 2, 70, 3});
  const auto g = random_decay({2, 2, 70, 6});
  const NaiveLinearAttention naive{.scale = 1 / std::sqrt(6.0), .decay = g.exp()};
  expect_naive(q, k, v,
               {.feature_map = FeatureMap::identity, .normalize = false, .is_causal = true, .log_decay = g},
               naive(q, k, v), "a decay for each channel");
  const auto of_step = g.select(-1, 0).contiguous();
  const NaiveLinearAttention naive_of_step{.scale = 1 / std::sqrt(6.0),
                                           .decay = of_step.exp().unsqueeze(-1).expand({2, 2, 70, 6})};
  expect_naive(
      q, k, v,
      {.feature_map = FeatureMap::identity, .normalize = false, .is_causal = true, .log_decay = of_step},
      naive_of_step(q, k, v), "a decay for each step");
}

TEST_F(LinearAttention, IsDeltaNetGatedDeltaNetAndKimiDeltaAttention) {
  const auto q = normal_rows({2, 2, 130, 6}), k = normal_rows({2, 2, 130, 6}), v = random({2, 2, 130, 3});
  const auto beta = torch::rand({2, 2, 130}, torch::kDouble), g = random_decay({2, 2, 130, 6});
  const auto of_step = g.select(-1, 1).contiguous();
  LinearAttentionParams params{
      .feature_map = FeatureMap::identity, .normalize = false, .is_causal = true, .beta = beta};
  NaiveLinearAttention naive{.scale = 1 / std::sqrt(6.0), .beta = beta};
  expect_naive(q, k, v, params, naive(q, k, v), "DeltaNet");
  params.log_decay = of_step;
  naive.decay = of_step.exp().unsqueeze(-1).expand({2, 2, 130, 6});
  expect_naive(q, k, v, params, naive(q, k, v), "Gated DeltaNet");
  params.log_decay = g;
  naive.decay = g.exp();
  expect_naive(q, k, v, params, naive(q, k, v), "Kimi delta attention");
  params.is_causal = naive.is_causal = false;
  expect_naive(q, k, v, params, naive(q, k, v), "the state after the last key");
}

TEST_F(LinearAttention, NormalisesTheDeltaRuleBySumsOfKeys) {
  const auto q = random({1, 2, 9, 4}).abs(), k = normal_rows({1, 2, 9, 4}).abs(), v = random({1, 2, 9, 3});
  const auto beta = torch::rand({1, 2, 9}, torch::kDouble);
  const NaiveLinearAttention naive{.beta = beta};
  const auto normaliser = (q * k.cumsum(2)).sum(-1, true);
  expect_naive(q, k, v, {.feature_map = FeatureMap::identity, .is_causal = true, .beta = beta},
               naive(q, k, v) / normaliser, "delta rule with a normaliser");
}

TEST_F(LinearAttention, QueriesAreAlignedWithTheLastKey) {
  for (const auto& [queries, keys] :
       std::vector<std::pair<int64_t, int64_t>>{{3, 70}, {70, 3}, {5, 0}, {0, 5}}) {
    for (const bool is_causal : {true, false}) {
      const auto q = random({2, 4, queries, 5}), k = random({2, 2, keys, 5}), v = random({2, 2, keys, 3});
      const NaiveLinearAttention naive{.normalize = true, .is_causal = is_causal};
      expect_naive(q.abs(), k.abs(), v, {.feature_map = FeatureMap::relu, .is_causal = is_causal},
                   naive(q.abs(), k.abs(), v), c10::str(queries, " x ", keys));
    }
  }
}

TEST_F(LinearAttention, TwoAndThreeDimensionsAreOneHead) {
  const auto q = random({2, 1, 7, 5}), k = random({2, 1, 7, 5}), v = random({2, 1, 7, 3});
  const auto g = random_decay({2, 1, 7, 5}), beta = torch::rand({2, 1, 7}, torch::kDouble),
             state = random({2, 1, 5, 3});
  const auto run = [&](const auto& view, const torch::Tensor& decay) {
    return linear_attention(view(q), view(k), view(v),
                            {.feature_map = FeatureMap::identity,
                             .normalize = false,
                             .is_causal = true,
                             .log_decay = view(decay),
                             .beta = view(beta),
                             .initial_state = view(state)});
  };
  // Matrix products of one and of two batch elements may add about 12 terms in different orders, with one
  // rounding per term.
  constexpr double kRounding = 12 * 4 * std::numeric_limits<double>::epsilon();
  for (const auto& decay : {g, g.select(-1, 0)}) {
    const auto four = run([](const torch::Tensor& x) { return x; }, decay);
    const auto three = run([](const torch::Tensor& x) { return x.squeeze(1); }, decay);
    const auto two = run([](const torch::Tensor& x) { return x[1].squeeze(0); }, decay);
    expect_close(three.output, four.output.squeeze(1), kRounding);
    expect_close(three.final_state, four.final_state.squeeze(1), kRounding);
    expect_close(two.output, four.output[1][0], kRounding);
    expect_close(two.final_state, four.final_state[1][0], kRounding);
  }
}

// ---- random features

TEST_F(LinearAttention, RandomFeaturesApproximateSoftmaxAttention) {
  const auto q = random({1, 2, 20, 8}) / 2, k = random({1, 2, 20, 8}) / 2, v = random({1, 2, 20, 4});
  for (const bool is_causal : {true, false}) {
    const auto exact = attention(q, k, v, {.mask = is_causal ? causal() : Mask()});
    const auto mean_error = [&](int64_t features) {
      double sum = 0;
      for (int draw = 0; draw < 4; ++draw) {
        const LinearAttentionParams params{.feature_map = FeatureMap::random_features,
                                           .projection = orthogonal_projection(features, 8),
                                           .is_causal = is_causal};
        const auto output = linear_attention(q, k, v, params).output;
        sum += (output - exact).square().mean().sqrt().item<double>() / 4;
      }
      return sum;
    };
    // The error is proportional to 1 / sqrt(number of features): from 64 to 4096 features it decreases by a
    // factor of 8.
    const double of_few = mean_error(64), of_many = mean_error(4096);
    EXPECT_LT(of_many, 0.02);
    EXPECT_LT(of_many, of_few / 4);
  }
}

/// Returns the logarithms of the random features of the softmax kernel, in the dtype of x.
torch::Tensor log_random_features(const torch::Tensor& x, const torch::Tensor& w) {
  const auto scaled = x / std::pow(static_cast<double>(x.size(-1)), 0.25);
  return torch::matmul(scaled, w.t()) - scaled.square().sum(-1, true) / 2 -
         std::log(static_cast<double>(w.size(0))) / 2;
}

TEST_F(LinearAttention, RandomFeaturesAreTheFormula) {
  const auto q = random({2, 4, 9, 8}), k = random({2, 2, 11, 8}), v = random({2, 2, 11, 4});
  const auto w = random({12, 8});
  const auto phi_q = log_random_features(q, w).exp(), phi_k = log_random_features(k, w).exp();
  const auto g = random_decay({2, 4, 11, 12});
  g.select(2, 5).fill_(-std::numeric_limits<double>::infinity());
  g.select(2, 7).fill_(-1e4);
  const auto of_head = g[0].select(-1, 0).select(-1, 0).contiguous(), of_step = g.select(-1, 1).contiguous();
  const std::vector<std::pair<torch::Tensor, torch::Tensor>> decays = {
      {{}, {}},
      {of_head, of_head.view({1, 4, 1, 1}).expand_as(g)},
      {of_step, of_step.unsqueeze(-1).expand_as(g)},
      {g, g}};
  for (const bool normalize : {true, false}) {
    for (const bool is_causal : {true, false}) {
      for (const auto& [log_decay, of_channels] : decays) {
        const NaiveLinearAttention naive{.normalize = normalize,
                                         .is_causal = is_causal,
                                         .decay = of_channels.defined() ? of_channels.exp() : of_channels};
        expect_naive(q, k, v,
                     {.feature_map = FeatureMap::random_features,
                      .projection = w,
                      .normalize = normalize,
                      .is_causal = is_causal,
                      .log_decay = log_decay},
                     naive(phi_q, phi_k, v), c10::str("normalize ", normalize, ", causal ", is_causal));
      }
    }
  }
}

/// Features from e^32 to e^-180 in float32 are as accurate as their logarithms in float32.
TEST_F(LinearAttention, RandomFeaturesOfAnyRangeAreTheFormula) {
  const int64_t length = 76, d = 64, first = 10;
  const auto w = orthogonal_projection(d, d);
  const auto q = torch::randn({1, 2, length, d}), v = torch::randn({1, 1, length, 3});
  const auto alike = w[0] * std::pow(static_cast<double>(d), 0.25);  // the key with the largest feature
  const auto g = -torch::rand({1, 2, length}) * 20;
  for (const double spread : {1.0, 3.0, 4.8, 6.0}) {
    auto k = torch::randn({1, 1, length, d}) * spread;
    if (spread < 5) k[0][0][0] = alike;
    for (const auto& log_decay : {torch::Tensor(), g}) {
      NaiveLinearAttention naive{.normalize = true};
      if (log_decay.defined()) {
        naive.decay = log_decay.to(torch::kDouble).exp().unsqueeze(-1).expand({1, 2, length, d});
      }
      const auto of_logarithms = [&](torch::ScalarType dtype) {
        const auto phi = [&](const torch::Tensor& x) {
          return log_random_features(x.to(dtype), w.to(dtype)).to(torch::kDouble).exp();
        };
        return naive(phi(q), phi(k), v.to(torch::kDouble));
      };
      const auto exact = of_logarithms(torch::kDouble);
      const double plain_error = max_difference(of_logarithms(torch::kFloat), exact);
      for (const auto& [name, form] : forms) {
        LinearAttentionParams params{.feature_map = FeatureMap::random_features,
                                     .projection = w,
                                     .is_causal = true,
                                     .log_decay = log_decay};
        const auto what = c10::str(name, ", keys of spread ", spread, log_decay.defined() ? ", decay" : "");
        const auto whole = linear_attention_as(form, q, k, v, params);
        expect_as_accurate(whole.output, plain_error, exact, 2, what);
        const auto of_part = [&, form = form](int64_t begin, int64_t end) {
          return linear_attention_as(form, q.slice(2, begin, end), k.slice(2, begin, end),
                                     v.slice(2, begin, end), part(params, begin, end));
        };
        const auto before = of_part(0, first);
        expect_as_accurate(before.output, plain_error, exact.slice(2, 0, first), 2, what);
        if (spread > 5) continue;  // states of e^-144 are zeros
        params.initial_state = before.final_state;
        expect_as_accurate(of_part(first, length).output, plain_error, exact.slice(2, first), 2,
                           what + ", second part");
      }
    }
  }
}

TEST_F(LinearAttention, RandomFeaturesOfLargeInputsStayFinite) {
  const auto q = random({1, 1, 5, 8}).to(torch::kFloat) * 60, k = q.flip(2) * 1.1;
  const auto v = torch::randn({1, 1, 5, 4});
  const auto result = linear_attention(
      q, k, v, {.feature_map = FeatureMap::random_features, .projection = orthogonal_projection(64, 8)});
  EXPECT_TRUE(result.output.isfinite().all().item<bool>());
}

TEST_F(LinearAttention, ProjectionsAreOrthogonalAndAsLongAsGaussianRows) {
  const auto w = orthogonal_projection(2000, 16).to(torch::kDouble);
  const auto block = w.slice(0, 16, 32);
  const auto lengths = torch::linalg_vector_norm(block, 2, at::IntArrayRef{1}, true);
  expect_close(torch::matmul(block / lengths, (block / lengths).t()), torch::eye(16, torch::kDouble), 1e-6);
  // The squared length of a row of 16 Gaussian numbers has mean 16 and variance 32; there are 2000 rows.
  EXPECT_NEAR(w.square().sum(1).mean().item<double>(), 16, 6 * std::sqrt(32.0 / 2000));
  EXPECT_NEAR(w.mean().item<double>(), 0, 6 / std::sqrt(32000.0));
}

// ---- states, decays and lengths

struct Setting {
  std::string name;
  LinearAttentionParams params;
};

/// Returns settings with every kind of decay, with and without delta rule and normaliser, for keys [B, H, L,
/// D]. The settings with the delta rule have no feature map, since the delta rule is stable only for keys of
/// length at most 1.
std::vector<Setting> settings(int64_t b, int64_t h, int64_t length, int64_t d) {
  const auto beta = torch::rand({b, h, length}, torch::kDouble);
  std::vector<Setting> all;
  for (const bool is_delta : {false, true}) {
    for (const bool normalize : {false, true}) {
      const LinearAttentionParams base{
          .feature_map = normalize && !is_delta ? FeatureMap::elu_plus_one : FeatureMap::identity,
          .normalize = normalize,
          .is_causal = true,
          .beta = is_delta ? beta : torch::Tensor()};
      const auto name = c10::str(is_delta ? "delta" : "sum", normalize ? ", normalised" : "");
      all.push_back({name, base});
      for (const auto& g :
           {random_decay({h}), random_decay({b, h, length}), random_decay({b, h, length, d})}) {
        auto with_decay = base;
        with_decay.log_decay = g;
        all.push_back({c10::str(name, ", decay ", g.sizes()), with_decay});
      }
    }
  }
  return all;
}

TEST_F(LinearAttention, ASequenceMayBeSplitAnywhere) {
  const int64_t length = 70;
  const auto q = random({1, 2, length, 5}).abs(), k = normal_rows({1, 2, length, 5}).abs(),
             v = random({1, 2, length, 3});
  for (auto& [name, params] : settings(1, 2, length, 5)) {
    params.initial_state = random({1, 2, 5, params.normalize ? 4 : 3}).abs();
    for (const auto& [form_name, form] : forms) {
      const auto whole = linear_attention_as(form, q, k, v, params);
      for (const int64_t at : {0, 1, 63, 64, 70}) {
        const auto first = linear_attention_as(form, q.slice(2, 0, at), k.slice(2, 0, at), v.slice(2, 0, at),
                                               part(params, 0, at));
        auto rest = part(params, at, length);
        rest.initial_state = first.final_state;
        const auto second = linear_attention_as(form, q.slice(2, at), k.slice(2, at), v.slice(2, at), rest);
        const auto what = c10::str(name, ", ", form_name, ", split at ", at);
        expect_close(torch::cat({first.output, second.output}, 2), whole.output, 1e-11, what);
        expect_close(second.final_state, whole.final_state, 1e-11, what);
      }
    }
  }
}

TEST_F(LinearAttention, KeysPastTheirLengthAreIgnored) {
  const auto q = random({2, 2, 70, 5}).abs(), k = normal_rows({2, 2, 70, 5}).abs(), v = random({2, 2, 70, 3});
  for (auto& [name, params] : settings(2, 2, 70, 5)) {
    for (const bool is_causal : {true, false}) {
      params.is_causal = is_causal;
      // Queries read at most the first 40 keys; without keys they read the initial state.
      const auto expected = linear_attention_as(LinearForm::recurrent, q.slice(2, 0, 40), k.slice(2, 0, 40),
                                                v.slice(2, 0, 40), part(params, 0, 40));
      for (const auto& [form_name, form] : forms) {
        params.key_lengths = torch::tensor({40, 0});
        auto poisoned_k = k.clone(), poisoned_v = v.clone();
        poisoned_k.slice(2, 40).fill_(NAN);
        poisoned_v.slice(2, 40).fill_(NAN);
        const auto result =
            linear_attention_as(form, q, poisoned_k.requires_grad_(), poisoned_v.requires_grad_(), params);
        const auto what = c10::str(name, ", ", form_name, ", causal ", is_causal);
        expect_close(result.output[0].slice(1, 0, 40), expected.output[0], 1e-11, what);
        expect_close(result.final_state[0], expected.final_state[0], 1e-11, what);
        EXPECT_EQ(result.output[1].abs().max().item<double>(), 0) << what;
        EXPECT_EQ(result.final_state[1].abs().max().item<double>(), 0) << what;
        result.output.sum().backward();
        EXPECT_TRUE(poisoned_k.grad().isfinite().all().item<bool>()) << what;
        EXPECT_EQ(poisoned_k.grad().slice(2, 40).abs().max().item<double>(), 0) << what;
        EXPECT_EQ(poisoned_v.grad().slice(2, 40).abs().max().item<double>(), 0) << what;
      }
      params.key_lengths = torch::Tensor();
    }
  }
}

TEST_F(LinearAttention, StrongDecaysForgetAndStayFinite) {
  const auto q = random({1, 1, 70, 4}), k = random({1, 1, 70, 4}), v = random({1, 1, 70, 3});
  for (const double log_decay : {0.0, -1e4, -std::numeric_limits<double>::infinity()}) {
    for (const bool per_channel : {false, true}) {
      auto g = random_decay({1, 1, 70, 4}) * 0.2;
      g.slice(2, 10, 12).fill_(log_decay);
      g[0][0][40].fill_(log_decay);
      if (!per_channel) g = g.select(-1, 0).contiguous();
      g.requires_grad_();
      const NaiveLinearAttention naive{
          .scale = 0.5, .decay = (per_channel ? g : g.unsqueeze(-1).expand({1, 1, 70, 4})).exp().detach()};
      LinearAttentionParams params{
          .feature_map = FeatureMap::identity, .normalize = false, .is_causal = true, .log_decay = g};
      expect_naive(q, k, v, params, naive(q, k, v), c10::str("log_decay ", log_decay));
      for (const auto& [name, form] : forms) {
        const auto output = linear_attention_as(form, q, k, v, params).output;
        const auto gradient = torch::autograd::grad({output.sum()}, {g})[0];
        EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << name;
      }
    }
  }
}

TEST_F(LinearAttention, AFinalStateAfterNoStepIsACopy) {
  const auto q = random({1, 1, 0, 4}), v = random({1, 1, 0, 3}), state = random({1, 1, 4, 4});
  for (const auto& [name, form] : forms) {
    const auto result = linear_attention_as(form, q, q, v, {.is_causal = true, .initial_state = state});
    expect_close(result.final_state, state, 0, name);
    EXPECT_NE(result.final_state.data_ptr(), state.data_ptr()) << name;
  }
}

TEST_F(LinearAttention, ErrorsListTheChoices) {
  const auto x = torch::ones({1, 2, 3, 4});
  const auto error = [&](const LinearAttentionParams& params) {
    return error_of([&] { linear_attention(x, x, x, params); });
  };
  const std::string prefix = "attend::linear_attention: ";
  EXPECT_EQ(error({.feature_map = static_cast<FeatureMap>(9)}),
            prefix + "feature_map: expected elu_plus_one, relu, identity or random_features, got 9");
  EXPECT_EQ(error({.backend = static_cast<Backend>(-1)}),
            prefix + "backend: expected automatic, fused, sdpa or reference, got -1");
  EXPECT_EQ(error({.backend = Backend::sdpa}),
            prefix +
                "backend: expected a backend that can serve the call, got sdpa, which cannot: "
                "at::scaled_dot_product_attention computes softmax attention only");
  EXPECT_EQ(error({.feature_map = FeatureMap::random_features}),
            prefix +
                "projection: expected a tensor for random_features, such as that of orthogonal_projection, "
                "got none");
}

TEST_F(LinearAttention, ErrorsNameTheArgument) {
  const auto x = torch::randn({1, 2, 3, 4});
  const auto error = [&](const LinearAttentionParams& params) {
    return error_of([&] { linear_attention(x, x, x, params); });
  };
  EXPECT_EQ(error({.log_decay = torch::zeros({2}, torch::kDouble)}),
            "attend::linear_attention: log_decay: expected the query's dtype float32, got float64 [2]");
  EXPECT_EQ(error({.key_lengths = torch::empty({1}, torch::dtype(torch::kLong).device(torch::kMeta))}),
            "attend::linear_attention: key_lengths: expected a tensor with data, since the query is on cpu, "
            "got int64 [1] on meta");
}

TEST_F(LinearAttention, GradientsUseTheLengthsOfTheForwardPass) {
  const auto q = random({1, 1, 20, 4}).requires_grad_(), v = random({1, 1, 20, 3});
  for (const auto& [name, form] : forms) {
    auto lengths = torch::full({1}, 10, torch::kLong);
    const auto output =
        linear_attention_as(form, q, q, v, {.is_causal = true, .key_lengths = lengths}).output.sum();
    const auto before = torch::autograd::grad({output}, {q}, {}, /*retain_graph=*/true)[0];
    lengths.fill_(20);
    expect_close(torch::autograd::grad({output}, {q})[0], before, 0, name);
  }
}

/// In float32, the relative error of exp(x) is a few roundings however small the result is, and that of a sum
/// of positive terms is at most one rounding per term.
TEST_F(LinearAttention, FeaturesOfNegativeInputsAreAccurate) {
  const int64_t length = 9, d = 8;
  const auto k = torch::randn({1, 1, length, d}), v = torch::randn({1, 1, length, 3});
  const auto phi = [](const torch::Tensor& x) {
    const auto wide = x.to(torch::kDouble);
    return torch::where(wide > 0, wide + 1, wide.exp());
  };
  const double tolerance = 2 * (length + d + 8) * unit_roundoff(torch::kFloat) * v.abs().max().item<double>();
  for (const double mean : {-1.0, -12.0, -16.0, -20.0, -60.0}) {
    const auto q = torch::randn({1, 1, length, d}) + mean;
    for (const bool is_causal : {true, false}) {
      const NaiveLinearAttention naive{.normalize = true, .is_causal = is_causal};
      const auto exact = naive(phi(q), phi(k), v.to(torch::kDouble));
      for (const auto& [name, form] : forms) {
        expect_close(linear_attention_as(form, q, k, v, {.is_causal = is_causal}).output, exact, tolerance,
                     c10::str(name, ", queries of mean ", mean));
      }
    }
  }
}

TEST_F(LinearAttention, AnUnderflowingNormaliserGivesZeros) {
  const auto v = torch::randn({1, 1, 5, 3});
  for (const double mean : {-35.0, -38.0, -45.0, -60.0}) {
    const auto q = torch::full({1, 1, 5, 4}, mean).requires_grad_(), k = q.detach().clone().requires_grad_();
    for (const auto& [name, form] : forms) {
      const auto output = linear_attention_as(form, q, k, v, {.is_causal = true}).output;
      const bool is_zero = mean < -36;  // 4 exp(2 mean) < 2^-126 / 2^-23
      EXPECT_EQ((output == 0).all().item<bool>(), is_zero) << name << mean;
      const auto gradients = torch::autograd::grad({1e6 * output.sum()}, {q, k});
      for (const auto& gradient : gradients)
        EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << name << mean;
      EXPECT_EQ(gradients[1].abs().max().item<double>() == 0, is_zero) << name << mean;
      if (is_zero) {
        EXPECT_EQ(gradients[0].abs().max().item<double>(), 0) << name << mean;
      }
    }
  }
}

TEST_F(LinearAttention, ANormaliserOfZeroGivesZeros) {
  auto q = random({1, 1, 5, 4}).requires_grad_();
  const auto k = -random({1, 1, 5, 4}).abs(), v = random({1, 1, 5, 3});
  for (const auto& [name, form] : forms) {
    for (const bool is_causal : {true, false}) {
      const auto output =
          linear_attention_as(form, q, k, v, {.feature_map = FeatureMap::relu, .is_causal = is_causal})
              .output;
      EXPECT_EQ(output.abs().max().item<double>(), 0) << name;
      EXPECT_EQ(torch::autograd::grad({output.sum()}, {q})[0].abs().max().item<double>(), 0) << name;
    }
  }
}

// ---- gradients

TEST_F(LinearAttention, GradientsAgreeWithCentralDifferences) {
  const int64_t length = 3;
  for (auto& [name, params] : settings(1, 2, length, 2)) {
    for (const bool is_causal : {true, false}) {
      if (!is_causal && params.log_decay.defined() && params.log_decay.dim() == 3) continue;
      params.is_causal = is_causal;
      params.initial_state = random({1, 2, 2, params.normalize ? 3 : 2}).abs().requires_grad_();
      std::vector<torch::Tensor> inputs = {random({1, 2, length, 2}).abs().requires_grad_(),
                                           normal_rows({1, 1, length, 2}).abs().requires_grad_(),
                                           random({1, 1, length, 2}).requires_grad_(), params.initial_state};
      for (auto* tensor : {&params.log_decay, &params.beta}) {
        if (!tensor->defined()) continue;
        *tensor = tensor->detach().clone().requires_grad_();
        inputs.push_back(*tensor);
      }
      auto form = LinearForm::automatic;
      const auto loss = [&] {
        const auto [output, state] = linear_attention_as(form, inputs[0], inputs[1], inputs[2], params);
        return output.sin().sum() + state.cos().sum();
      };
      SCOPED_TRACE(c10::str(name, ", causal ", is_causal));
      expect_gradients(loss, inputs);
      const auto gradients = torch::autograd::grad({loss()}, inputs);
      for (const auto other : {LinearForm::chunked, LinearForm::recurrent}) {
        form = other;
        const auto others = torch::autograd::grad({loss()}, inputs);
        for (size_t n = 0; n < inputs.size(); ++n) {
          expect_close(gradients[n], others[n], 1e-11, c10::str("input ", n));
        }
      }
    }
  }
}

TEST_F(LinearAttention, RandomFeaturesAreDifferentiable) {
  const auto q = random({1, 2, 5, 3}).requires_grad_(), k = random({1, 1, 5, 3}).requires_grad_(),
             v = random({1, 1, 5, 2}).requires_grad_(), w = random({4, 3}).requires_grad_(),
             g = random_decay({1, 2, 5}).requires_grad_();
  for (const bool normalize : {true, false}) {
    const auto state = random({1, 2, 4, normalize ? 3 : 2}).abs().requires_grad_();
    expect_gradients(
        [&] {
          return linear_attention(q, k, v,
                                  {.feature_map = FeatureMap::random_features,
                                   .projection = w,
                                   .normalize = normalize,
                                   .is_causal = true,
                                   .log_decay = g,
                                   .initial_state = state})
              .output.sin()
              .sum();
        },
        {q, k, v, w, g, state});
  }
}

TEST_F(LinearAttention, SecondDerivativesAgreeWithCentralDifferences) {
  for (auto& [name, params] : settings(1, 1, 2, 2)) {
    const auto q = random({1, 1, 2, 2}).abs().requires_grad_(),
               k = normal_rows({1, 1, 2, 2}).abs().requires_grad_(),
               v = random({1, 1, 2, 2}).requires_grad_();
    std::vector<torch::Tensor> inputs = {q, k, v};
    for (auto* tensor : {&params.log_decay, &params.beta}) {
      if (!tensor->defined()) continue;
      *tensor = tensor->detach().clone().requires_grad_();
      inputs.push_back(*tensor);
    }
    const auto loss = [&] {
      const auto output = linear_attention(q, k, v, params).output.sin().sum();
      const at::AutoGradMode graph(true);
      torch::Tensor sum = torch::zeros({}, torch::kDouble);
      for (const auto& gradient : torch::autograd::grad({output}, inputs, {}, true, true)) {
        sum = sum + gradient.square().sum();
      }
      return sum;
    };
    SCOPED_TRACE(name);
    const auto gradients = torch::autograd::grad({loss()}, inputs);
    for (size_t n = 0; n < inputs.size(); ++n) {
      const auto differences = numeric_gradient(
          [&] {
            const at::AutoGradMode graph(true);
            return loss();
          },
          inputs[n]);
      expect_close(gradients[n], differences, 1e-6, "input " + std::to_string(n));
    }
  }
}

TEST_F(LinearAttention, ForwardModeAgreesWithBackwardMode) {
  for (auto& [name, params] : settings(1, 2, 5, 3)) {
    const auto k = normal_rows({1, 2, 5, 3}).abs(), v = random({1, 2, 5, 2}),
               direction = random({1, 2, 5, 3});
    const auto q = random({1, 2, 5, 3}).abs().requires_grad_();
    const auto by_backward =
        (torch::autograd::grad({linear_attention(q, k, v, params).output.sin().sum()}, {q})[0] * direction)
            .sum();
    const auto level = static_cast<int64_t>(torch::autograd::ForwardADLevel::get_next_idx());
    const auto dual = at::_make_dual(q.detach(), direction, level);
    const auto loss = linear_attention(dual, k, v, params).output.sin().sum();
    const auto tangent = std::get<1>(at::_unpack_dual(loss, level));
    torch::autograd::ForwardADLevel::release_idx(static_cast<uint64_t>(level));
    expect_close(tangent, by_backward, 1e-12, name);
  }
}

TEST_F(LinearAttention, OneTensorInSeveralPlacesGetsEachGradientOnce) {
  const auto x = torch::randn({1, 2, 9, 4}, torch::dtype(torch::kDouble).requires_grad(true));
  const auto output = linear_attention(x, x, 2 * x, {.is_causal = true}).output;
  const auto first = torch::autograd::grad({output.sin().sum()}, {x}, {}, /*retain_graph=*/true)[0];
  const auto with_graph =
      torch::autograd::grad({output.sin().sum()}, {x}, {}, true, /*create_graph=*/true)[0];
  expect_close(with_graph, first, 1e-12);
}

}  // namespace
}  // namespace attend::testing
