// The module against torch.nn.MultiheadAttention of Python (recorded by tests/record_modules.py), and its own
// options against attention that is put together by hand.
#include <attend/attention.h>
#include <attend/nn/multi_head_attention.h>

#include <sstream>

#include "module_cases.h"
#include "support.h"

namespace attend::testing {
namespace {

using nn::MultiHeadAttention;
using nn::MultiHeadAttentionInputs;
using nn::MultiHeadAttentionOptions;

class MultiHead : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

/// A module in float64 whose biases are not 0.
MultiHeadAttention random_module(const MultiHeadAttentionOptions& options) {
  MultiHeadAttention module(options);
  module->to(torch::kDouble);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : module->parameters()) parameter.normal_(0, 0.4);
  return module;
}

torch::Tensor random(at::IntArrayRef sizes) { return torch::randn(sizes, torch::kDouble); }

// ---- against Python

TEST_F(MultiHead, AgreesWithPython) {
  int count = 0;
  for (const auto& [name, recorded] : recorded_cases("modules.safetensors")) {
    if (!name.starts_with("mha_")) continue;
    ++count;
    SCOPED_TRACE(name);
    const auto width = [&](const char* input) {
      return recorded.contains(input) ? recorded.at(input).size(-1) : recorded.at("query").size(-1);
    };
    MultiHeadAttention module(MultiHeadAttentionOptions(8, 2)
                                  .kdim(width("key"))
                                  .vdim(width("value"))
                                  .bias(recorded.contains("in_proj_bias")));
    expect_as_recorded(*module, recorded, [&](const Recorded& inputs) -> Recorded {
      const auto optional = [&](const char* input) {
        return inputs.contains(input) ? inputs.at(input) : torch::Tensor();
      };
      const MultiHeadAttentionInputs masks{.key_padding_mask = optional("key_padding_mask"),
                                           .attn_mask = optional("attn_mask")};
      const auto key = optional("key"), value = optional("value");
      const auto [output, weights] =
          module->forward_with_weights(inputs.at("query"), key, value, masks, /*average=*/false);
      EXPECT_TRUE(same_bits(module(inputs.at("query"), key, value, masks), output));
      return {{"output", output}, {"weights", weights}};
    });
  }
  EXPECT_GE(count, 15);
}

TEST_F(MultiHead, ParametersBearThePythonNames) {
  const auto shapes = [](const MultiHeadAttentionOptions& options) {
    std::map<std::string, std::vector<int64_t>> named;
    for (const auto& parameter : MultiHeadAttention(options)->named_parameters())
      named[parameter.key()] = parameter.value().sizes().vec();
    return named;
  };
  using Shapes = std::map<std::string, std::vector<int64_t>>;
  EXPECT_EQ(shapes({8, 2}), (Shapes{{"in_proj_weight", {24, 8}},
                                    {"in_proj_bias", {24}},
                                    {"out_proj.weight", {8, 8}},
                                    {"out_proj.bias", {8}}}));
  EXPECT_EQ(shapes(MultiHeadAttentionOptions(8, 4).num_kv_heads(2).bias(false)),
            (Shapes{{"in_proj_weight", {16, 8}}, {"out_proj.weight", {8, 8}}}));
  EXPECT_EQ(shapes(MultiHeadAttentionOptions(8, 4).num_kv_heads(1).head_dim(3).kdim(5).qk_norm(true)),
            (Shapes{{"q_proj_weight", {12, 8}},
                    {"k_proj_weight", {3, 5}},
                    {"v_proj_weight", {3, 8}},
                    {"in_proj_bias", {18}},
                    {"logit_scale", {4}},
                    {"out_proj.weight", {8, 12}},
                    {"out_proj.bias", {8}}}));
}

// ---- the options, by hand

/// The projections of a module that has one parameter for them, in heads.
struct ByHand {
  torch::Tensor query, key, value;

  ByHand(MultiHeadAttention& module, const torch::Tensor& x) {
    const auto& options = module->options;
    const auto heads = torch::linear(x, module->in_proj_weight, module->in_proj_bias)
                           .view({x.size(0), x.size(1), -1, options.head_dim()})
                           .transpose(1, 2);
    query = heads.narrow(1, 0, options.num_heads());
    key = heads.narrow(1, options.num_heads(), options.num_kv_heads());
    value = heads.narrow(1, options.num_heads() + options.num_kv_heads(), options.num_kv_heads());
  }
  torch::Tensor output(MultiHeadAttention& module, const AttentionParams& params = {}) const {
    return module->out_proj(attention(query, key, value, params).transpose(1, 2).flatten(2));
  }
};

TEST_F(MultiHead, GroupedHeadsShareKeys) {
  auto module = random_module(MultiHeadAttentionOptions(12, 6).num_kv_heads(2));
  const auto x = random({2, 5, 12});
  expect_close(module(x), ByHand(module, x).output(module), 1e-13);
}

TEST_F(MultiHead, CausalAndWindowHideKeys) {
  const auto x = random({2, 7, 8});
  auto causal_module = random_module(MultiHeadAttentionOptions(8, 2).is_causal(true));
  expect_close(causal_module(x), ByHand(causal_module, x).output(causal_module, {.mask = causal()}), 1e-13);
  auto window_module = random_module(MultiHeadAttentionOptions(8, 2).window({2, 1}));
  expect_close(window_module(x), ByHand(window_module, x).output(window_module, {.mask = window(2, 1)}),
               1e-13);
  auto both = random_module(MultiHeadAttentionOptions(8, 2).window({2, -1}).is_causal(true));
  expect_close(both(x, {}, {}, {.mask = key_lengths(torch::tensor({7, 3}))}),
               ByHand(both, x).output(both, {.mask = window(2, 0) & key_lengths(torch::tensor({7, 3}))}),
               1e-13);
}

TEST_F(MultiHead, AlibiTakesItsSlopes) {
  auto module = random_module(MultiHeadAttentionOptions(12, 6).alibi(true));
  const auto x = random({2, 5, 12});
  const auto output = ByHand(module, x).output(module, {.score_mod = alibi(alibi_slopes(6))});
  expect_close(module(x), output, 1e-13);
}

TEST_F(MultiHead, RelativeBiasIsLearned) {
  const RelativeBuckets buckets{.count = 8, .max_distance = 9};
  auto module = random_module(MultiHeadAttentionOptions(12, 6).relative_bias(buckets));
  EXPECT_EQ(module->relative_bias.sizes(), (std::vector<int64_t>{8, 6}));
  const auto x = random({2, 5, 12});
  const auto table = module->relative_bias.index_select(0, relative_buckets(5, 5, buckets).flatten());
  const auto values = table.view({5, 5, 6}).permute({2, 0, 1});
  expect_close(module(x), ByHand(module, x).output(module, {.score_mod = bias(values)}), 1e-13);
  module(x).sum().backward();
  EXPECT_GT(module->relative_bias.grad().abs().max().item<double>(), 0);
}

TEST_F(MultiHead, SinksTakeAPartOfTheWeights) {
  auto module = random_module(MultiHeadAttentionOptions(12, 6).num_kv_heads(2).sinks(true));
  EXPECT_EQ(module->sinks.sizes(), (std::vector<int64_t>{6}));
  const auto x = random({2, 5, 12});
  // The softmax over one more score, whose value is 0.
  const ByHand by_hand(module, x);
  const auto key = by_hand.key.repeat_interleave(3, 1), value = by_hand.value.repeat_interleave(3, 1);
  const auto scores = torch::matmul(by_hand.query, key.transpose(-2, -1)) / std::sqrt(2.0);
  const auto sinks = module->sinks.view({1, 6, 1, 1}).expand({2, 6, 5, 1});
  const auto weights = torch::softmax(torch::cat({scores, sinks}, -1), -1).slice(-1, 0, 5);
  expect_close(module(x), module->out_proj(torch::matmul(weights, value).transpose(1, 2).flatten(2)), 1e-13);
  expect_close(std::get<1>(module->forward_with_weights(x, {}, {}, {}, /*average=*/false)), weights, 1e-14);
  module(x).sum().backward();
  EXPECT_GT(module->sinks.grad().abs().min().item<double>(), 0);
}

TEST_F(MultiHead, CapsScores) {
  auto module = random_module(MultiHeadAttentionOptions(12, 6).softcap(0.5).alibi(true));
  const auto x = random({2, 5, 12});
  const auto modification = softcap(0.5).then(alibi(alibi_slopes(6)));
  expect_close(module(x), ByHand(module, x).output(module, {.score_mod = modification}), 1e-13);
}

TEST_F(MultiHead, RotaryTurnsQueriesAndKeys) {
  const RotaryParams params{.layout = RotaryLayout::interleaved, .dims = 2, .base = 100};
  auto module = random_module(MultiHeadAttentionOptions(8, 2).rotary(params));
  const auto x = random({2, 5, 8});
  ByHand by_hand(module, x);
  by_hand.query = rotary(by_hand.query, params);
  by_hand.key = rotary(by_hand.key, params);
  expect_close(module(x), by_hand.output(module), 1e-13);
  // The last query is at the last key's position.
  expect_close(module(x.slice(1, 3), x, x), module(x).slice(1, 3), 1e-13);
}

TEST_F(MultiHead, CosineScoresHaveALearnedTemperature) {
  auto module = random_module(MultiHeadAttentionOptions(8, 2).qk_norm(true));
  const auto x = random({2, 5, 8});
  ByHand by_hand(module, x);
  namespace F = torch::nn::functional;
  const auto normalize = F::NormalizeFuncOptions().dim(-1);
  by_hand.query = F::normalize(by_hand.query, normalize) * module->logit_scale.exp().view({2, 1, 1});
  by_hand.key = F::normalize(by_hand.key, normalize);
  expect_close(module(x), by_hand.output(module, {.scale = 1}), 1e-13);
  // No temperature above 100, so that training can't run away.
  const auto with_scale = [&](double scale) {
    const torch::NoGradGuard no_grad;
    module->logit_scale.fill_(scale);
    return module(x);
  };
  expect_close(with_scale(std::log(100)), with_scale(50), 1e-12);
}

TEST_F(MultiHead, WeightsOfEachHeadOrTheirAverage) {
  auto module = random_module({8, 2});
  const auto x = random({2, 5, 8});
  const auto [output, weights] = module->forward_with_weights(x, {}, {}, {}, /*average=*/false);
  const ByHand by_hand(module, x);
  expect_close(weights, attention_weights(by_hand.query, by_hand.key), 1e-14);
  expect_close(output, module(x), 0);
  expect_close(std::get<1>(module->forward_with_weights(x)), weights.mean(1), 1e-15);
  expect_close(std::get<1>(module->forward_with_weights(x[0])), weights[0].mean(0), 1e-14);
}

TEST_F(MultiHead, DropsWeightsWhileTraining) {
  auto module = random_module(MultiHeadAttentionOptions(8, 2).dropout(0.5));
  const auto x = random({2, 5, 8});
  EXPECT_GT(max_difference(module(x), module(x)), 1e-3);
  module->eval();
  EXPECT_TRUE(same_bits(module(x), module(x)));
}

TEST_F(MultiHead, AQueryThatSeesNothingGetsTheBias) {
  auto module = random_module({8, 2});
  const auto x = random({2, 5, 8});
  const auto output =
      module(x, {}, {}, {.key_padding_mask = torch::tensor({{true}, {false}}).expand({2, 5})});
  expect_close(output[0], module->out_proj->bias.expand({5, 8}), 0);
  EXPECT_TRUE(same_bits(output[1], module(x)[1]));
}

// ---- a step at a time

TEST_F(MultiHead, StepsEqualTheWhole) {
  const torch::NoGradGuard no_grad;
  const std::map<std::string, MultiHeadAttentionOptions> cases = {
      {"plain", {8, 2}},
      {"grouped", MultiHeadAttentionOptions(8, 4).num_kv_heads(2)},
      {"rotary", MultiHeadAttentionOptions(8, 2).rotary(RotaryParams{})},
      {"alibi", MultiHeadAttentionOptions(8, 2).alibi(true)},
      {"relative bias", MultiHeadAttentionOptions(8, 2).relative_bias(RelativeBuckets{})},
      {"sinks", MultiHeadAttentionOptions(8, 2).sinks(true)},
      {"qk_norm", MultiHeadAttentionOptions(8, 2).qk_norm(true).rotary(RotaryParams{})},
      {"window", MultiHeadAttentionOptions(8, 2).window({5, 0}).rotary(RotaryParams{})},
      {"window, relative bias",
       MultiHeadAttentionOptions(8, 2).window({5, 0}).relative_bias(RelativeBuckets{})},
      {"window, alibi", MultiHeadAttentionOptions(8, 2).window({5, -1}).alibi(true)},
  };
  for (const auto& [name, options] : cases) {
    SCOPED_TRACE(name);
    auto whole_options = options;
    auto whole = random_module(whole_options.is_causal(true)), steps = whole;
    const auto x = random({2, 40, 8});
    auto cache = steps->make_cache(2, 40);
    const auto expected = whole(x);
    int64_t first = 0;
    for (const int64_t tokens : {7, 1, 1, 3, 1, 12, 1, 1, 1, 1, 1, 10}) {
      const auto part = steps(x.slice(1, first, first + tokens), {}, {}, {.cache = &cache});
      expect_close(part, expected.slice(1, first, first + tokens), 1e-12);
      first += tokens;
    }
    ASSERT_EQ(first, 40);
    if (name.starts_with("window")) continue;
    // Back to the middle, with another end.
    cache.truncate(20);
    auto other = x.clone();
    other.slice(1, 20).normal_();
    expect_close(steps(other.slice(1, 20), {}, {}, {.cache = &cache}), whole(other).slice(1, 20), 1e-12);
  }
}

TEST_F(MultiHead, TwoHundredAndFiftySixStepsEqualTheWhole) {
  auto options = MultiHeadAttentionOptions(16, 4).num_kv_heads(2).is_causal(true).rotary(RotaryParams{});
  MultiHeadAttention module(options);
  const torch::NoGradGuard no_grad;
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    module->to(dtype);
    const auto x = torch::randn({1, 256, 16}).to(dtype);
    auto cache = module->make_cache(1, 256);
    std::vector<torch::Tensor> steps;
    for (int64_t n = 0; n < 256; ++n)
      steps.push_back(module(x.slice(1, n, n + 1), {}, {}, {.cache = &cache}));
    // As near to the exact result as the whole forward of the same dtype is.
    const auto whole = module(x);
    module->to(torch::kDouble);
    const auto exact = module(x.to(torch::kDouble));
    expect_as_accurate(torch::cat(steps, 1), max_difference(whole, exact), exact, 2, torch::toString(dtype));
  }
}

TEST_F(MultiHead, StepsOfDifferentSequences) {
  const torch::NoGradGuard no_grad;
  auto module = random_module(MultiHeadAttentionOptions(8, 2).is_causal(true).rotary(RotaryParams{}));
  const auto a = random({1, 9, 8}), b = random({1, 6, 8});
  auto cache = module->make_cache(2, 12);
  const auto padding = random({1, 3, 8});
  auto output = module(torch::cat({a.slice(1, 0, 5), torch::cat({padding, b.slice(1, 0, 2)}, 1)}), {}, {},
                       {.cache = &cache, .counts = torch::tensor({5, 2})});
  expect_close(output[0], module(a)[0].slice(0, 0, 5), 1e-13);
  expect_close(output[1].slice(0, 3), module(b)[0].slice(0, 0, 2), 1e-13);
  output = module(torch::cat({a.slice(1, 5), b.slice(1, 2)}), {}, {}, {.cache = &cache});
  expect_close(output[0], module(a)[0].slice(0, 5), 1e-13);
  expect_close(output[1], module(b)[0].slice(0, 2), 1e-13);
}

TEST_F(MultiHead, ReadsAMemoryThatWasAppendedOnce) {
  const torch::NoGradGuard no_grad;
  auto module = random_module(MultiHeadAttentionOptions(8, 2).kdim(6).vdim(6).rotary(RotaryParams{}));
  const auto query = random({2, 3, 8}), memory = random({2, 7, 6});
  auto cache = module->make_cache(2, 7);
  module->append(cache, memory);
  const auto hidden = torch::rand({2, 7}) < 0.3;
  for (int n = 0; n < 2; ++n) {
    expect_close(module(query, {}, {}, {.key_padding_mask = hidden, .cache = &cache, .appends = false}),
                 module(query, memory, {}, {.key_padding_mask = hidden}), 1e-13);
  }
}

// ---- as a module of torch::nn

TEST_F(MultiHead, SavesLoadsClonesAndStandsInSequential) {
  auto module = random_module(MultiHeadAttentionOptions(8, 4).num_kv_heads(2).kdim(5).qk_norm(true));
  auto loaded = random_module(module->options);
  std::stringstream stream;
  torch::save(module, stream);
  torch::load(loaded, stream);
  const auto query = random({2, 3, 8}), key = random({2, 7, 5}), value = random({2, 7, 8});
  EXPECT_TRUE(same_bits(loaded(query, key, value), module(query, key, value)));
  MultiHeadAttention copy(std::dynamic_pointer_cast<nn::MultiHeadAttentionImpl>(module->clone()));
  EXPECT_TRUE(same_bits(copy->forward(query, key, value), module(query, key, value)));
  EXPECT_NE(copy->q_proj_weight.data_ptr(), module->q_proj_weight.data_ptr());
  auto self = random_module({8, 2});
  torch::nn::Sequential sequential(self, self);
  const auto x = random({2, 3, 8});
  EXPECT_TRUE(same_bits(sequential->forward(x), self(self(x))));
}

TEST_F(MultiHead, StartsAsPythonDoes) {
  MultiHeadAttention module(64, 4);
  EXPECT_EQ(module->in_proj_bias.abs().max().item<double>(), 0);
  EXPECT_EQ(module->out_proj->bias.abs().max().item<double>(), 0);
  // Uniform up to sqrt(6 / (fan in + fan out)), of which 12,288 numbers reach nearly the end.
  const double bound = std::sqrt(6.0 / (64 + 192));
  const double largest = module->in_proj_weight.abs().max().item<double>();
  EXPECT_LE(largest, bound);
  EXPECT_GT(largest, 0.99 * bound);
}

TEST_F(MultiHead, PrettyPrints) {
  std::ostringstream text;
  text << MultiHeadAttention(MultiHeadAttentionOptions(8, 4).num_kv_heads(2).bias(false));
  EXPECT_EQ(
      text.str(),
      "attend::nn::MultiHeadAttention(embed_dim=8, num_heads=4, num_kv_heads=2, head_dim=2, bias=false)(\n"
      "  (out_proj): torch::nn::Linear(in_features=8, out_features=8, bias=false)\n)");
}

TEST_F(MultiHead, PrettyPrintsWhatDiffersFromTheDefault) {
  std::ostringstream text;
  text << MultiHeadAttention(MultiHeadAttentionOptions(8, 4)
                                 .kdim(5)
                                 .vdim(6)
                                 .dropout(0.1)
                                 .qk_norm(true)
                                 .rotary(RotaryParams{})
                                 .alibi(true)
                                 .window({3, 0})
                                 .softcap(20)
                                 .relative_bias(RelativeBuckets{})
                                 .sinks(true)
                                 .is_causal(true));
  const std::string others =
      ", bias=true, kdim=5, vdim=6, dropout=0.1, qk_norm=true, rotary=true, alibi=true, window=[3, 0], "
      "softcap=20, relative_bias=true, sinks=true, is_causal=true)(";
  EXPECT_NE(text.str().find(others), std::string::npos) << text.str();
}

TEST_F(MultiHead, GradientsAgreeWithCentralDifferences) {
  auto module = random_module(
      MultiHeadAttentionOptions(4, 2).num_kv_heads(1).qk_norm(true).rotary(RotaryParams{}).is_causal(true));
  const auto x = random({2, 3, 4}).requires_grad_();
  auto inputs = module->parameters();
  inputs.push_back(x);
  // Differences of a function whose third derivative the temperature makes large.
  expect_gradients([&] { return module(x).sin().sum(); }, inputs, 1e-6);
}

// ---- wrong input

TEST_F(MultiHead, ErrorsNameTheOption) {
  const auto error = [](const MultiHeadAttentionOptions& options) {
    return error_of([&] { MultiHeadAttention module(options); });
  };
  const std::string name = "attend::nn::MultiHeadAttention: ";
  EXPECT_EQ(error({0, 2}), name + "embed_dim: expected at least 1, got 0");
  EXPECT_EQ(error({8, 0}), name + "num_heads: expected at least 1, got 0");
  EXPECT_EQ(error({8, 3}),
            name + "num_heads: expected a number that divides embed_dim, 8, or a head_dim, got 3");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).num_kv_heads(3)),
            name + "num_kv_heads: expected a number that divides num_heads, 4, got 3");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).kdim(-1)), name + "kdim: expected at least 1, got -1");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).dropout(1.5)),
            name + "dropout: expected a probability in [0, 1], got 1.5");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).window({-2, 0})),
            name + "window.left: expected at least -1, got -2");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).softcap(-1)).substr(0, 21), "attend::softcap: cap:");
  EXPECT_EQ(error(MultiHeadAttentionOptions(9, 3).rotary(RotaryParams{})),
            name + "head_dim: expected an even number with rotary, got 3");
}

TEST_F(MultiHead, ACallThatFailsLeavesTheCache) {
  auto module = random_module(MultiHeadAttentionOptions(8, 2).is_causal(true));
  const torch::NoGradGuard no_grad;
  auto cache = module->make_cache(1, 10);
  const auto x = random({1, 3, 8});
  module(x, {}, {}, {.cache = &cache});
  EXPECT_EQ(error_of([&] { module(x, {}, {}, {.attn_mask = torch::zeros({5, 5}), .cache = &cache}); }),
            "attend::nn::MultiHeadAttention: attn_mask: expected a boolean or floating tensor [3, 6] or [2, "
            "3, 6], got "
            "float32 [5, 5]");
  EXPECT_EQ(error_of([&] {
              module(x, {}, {}, {.mask = dense(torch::ones({5, 5}, torch::kBool)), .cache = &cache});
            }).substr(0, 23),
            "attend::attention: mask");
  EXPECT_EQ(cache.lengths().item<int64_t>(), 3);
}

TEST_F(MultiHead, ErrorsNameTheArgument) {
  auto module = random_module(MultiHeadAttentionOptions(8, 2).kdim(6));
  const auto query = random({2, 3, 8}), key = random({2, 7, 6}), value = random({2, 7, 8});
  const auto error = [&](const MultiHeadAttentionInputs& inputs) {
    return error_of([&] { module(query, key, value, inputs); });
  };
  const std::string name = "attend::nn::MultiHeadAttention: ";
  EXPECT_EQ(error_of([&] { module(torch::Tensor(), key, value); }),
            name + "query: expected a tensor, got an undefined tensor");
  EXPECT_EQ(error_of([&] { module(query); }), name + "key: expected [B, L, 6], got float64 [2, 3, 8]");
  EXPECT_EQ(error_of([&] { module(query, key[0], value); }),
            name + "key: expected [B, L, 6], got float64 [7, 6]");
  EXPECT_EQ(error_of([&] { module(query, key, value.slice(1, 1)); }),
            name + "value: expected the length of key, 7, got float64 [2, 6, 8]");
  EXPECT_EQ(error_of([&] { module(query, key, value.slice(0, 1)); }),
            name + "value: expected the batch size of query, 2, got float64 [1, 7, 8]");
  EXPECT_EQ(error({.key_padding_mask = torch::ones({2, 6}, torch::kBool)}),
            name + "key_padding_mask: expected a boolean or floating tensor [2, 7], got bool [2, 6]");
  EXPECT_EQ(error({.key_padding_mask = torch::ones({2, 7}, torch::kLong)}),
            name + "key_padding_mask: expected a boolean or floating tensor [2, 7], got int64 [2, 7]");
  EXPECT_EQ(
      error({.attn_mask = torch::ones({2, 3, 7}, torch::kBool)}),
      name + "attn_mask: expected a boolean or floating tensor [3, 7] or [4, 3, 7], got bool [2, 3, 7]");
  EXPECT_EQ(error({.counts = torch::tensor({1, 1})}),
            name + "counts: expected none without a cache to append to, got int64 [2]");
  const torch::NoGradGuard no_grad;
  auto cache = module->make_cache(2, 2);
  EXPECT_EQ(error({.cache = &cache}),
            name + "key: expected the length of query, 3, with a cache to append to, got float64 [2, 7, 6]");
  auto self = random_module(MultiHeadAttentionOptions(8, 2).is_causal(true));
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &cache}); }),
            "attend::KVCache: key: expected at most 2 more tokens, of a capacity of 2 (0 are used), got 3");
  EXPECT_EQ(error_of([&] {
              self(query, {}, {}, {.key_padding_mask = torch::ones({2, 3}, torch::kBool), .cache = &cache});
            }),
            name + "key_padding_mask: expected none with a cache to append to, but counts, got bool [2, 3]");
  auto windowed = random_module(MultiHeadAttentionOptions(8, 2).window({1, 0}))->make_cache(2, 9);
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &windowed}); }),
            name + "cache: expected one without a window, got 2");
  auto small = self->make_cache(1, 9);
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &small}); }),
            name + "cache: expected one of batch 2, 2 heads of 4, got batch 1, 2 heads of 4");
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &small, .appends = false}); }),
            name + "cache: expected one of batch 2, 2 heads of 4, got batch 1, 2 heads of 4");
  auto other_heads = random_module({8, 4})->make_cache(2, 9);
  EXPECT_EQ(error_of([&] { self->append(other_heads, query); }),
            name + "cache: expected one of batch 2, 2 heads of 4, got batch 2, 4 heads of 2");
  auto other = random_module({8, 2});
  EXPECT_EQ(error_of([&] { other(query, {}, {}, {.cache = &cache}); }),
            name +
                "cache: expected is_causal(true), as what is appended to it is masked causally, got "
                "is_causal(false)");
}

TEST_F(MultiHead, ACallMayBeCausal) {
  const torch::NoGradGuard no_grad;
  auto module = random_module({8, 2});
  const auto x = random({2, 2, 8});
  const auto whole = module(x, {}, {}, {.is_causal = true});
  EXPECT_TRUE(same_bits(whole, module(x, {}, {}, {.mask = causal()})));
  auto cache = module->make_cache(2, 2);
  expect_close(module(x, {}, {}, {.cache = &cache, .is_causal = true}), whole, 1e-13);
}

}  // namespace
}  // namespace attend::testing
