// Compares nn::MultiHeadAttention with torch.nn.MultiheadAttention of Python (recorded by
// tests/record/record_modules.py) and torch::nn::MultiheadAttention of C++, and the options that these lack
// with attention that is composed by hand.
#include <attend/attention.h>
#include <attend/nn/multi_head_attention.h>

#include <sstream>

#include "module_cases.h"
#include "support.h"

namespace attend::testing {
namespace {

using nn::MultiHeadAttention;
using nn::MultiHeadAttentionOptions;
using nn::MultiHeadAttentionParams;

class MultiHead : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

/// Returns a module in float64 with random parameters, including biases.
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
      const MultiHeadAttentionParams masks{.key_padding_mask = optional("key_padding_mask"),
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

TEST_F(MultiHead, ParametersHavePythonsNames) {
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
  EXPECT_EQ(
      shapes(MultiHeadAttentionOptions(8, 4).num_kv_heads(1).head_dim(3).kdim(5).cosine_similarity(true)),
      (Shapes{{"q_proj_weight", {12, 8}},
              {"k_proj_weight", {3, 5}},
              {"v_proj_weight", {3, 8}},
              {"in_proj_bias", {18}},
              {"logit_scale", {4}},
              {"out_proj.weight", {8, 12}},
              {"out_proj.bias", {8}}}));
}

// ---- the options, by hand

/// The projections of a module with in_proj_weight, split into heads.
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

TEST_F(MultiHead, AlibiAddsItsBias) {
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

TEST_F(MultiHead, SinksJoinTheDenominator) {
  auto module = random_module(MultiHeadAttentionOptions(12, 6).num_kv_heads(2).sinks(true));
  EXPECT_EQ(module->sinks.sizes(), (std::vector<int64_t>{6}));
  const auto x = random({2, 5, 12});
  // A sink is one more score in the softmax, whose value vector is 0.
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

TEST_F(MultiHead, RotaryRotatesQueriesAndKeys) {
  const RotaryParams params{.layout = RotaryLayout::interleaved, .dims = 2, .base = 100};
  auto module = random_module(MultiHeadAttentionOptions(8, 2).rotary(params));
  const auto x = random({2, 5, 8});
  ByHand by_hand(module, x);
  by_hand.query = rotary(by_hand.query, params);
  by_hand.key = rotary(by_hand.key, params);
  expect_close(module(x), by_hand.output(module), 1e-13);
  // The last query has the position of the last key.
  expect_close(module(x.slice(1, 3), x, x), module(x).slice(1, 3), 1e-13);
}

TEST_F(MultiHead, CosineScoresHaveALearnedTemperature) {
  auto module = random_module(MultiHeadAttentionOptions(8, 2).cosine_similarity(true));
  const auto x = random({2, 5, 8});
  ByHand by_hand(module, x);
  namespace F = torch::nn::functional;
  const auto normalize = F::NormalizeFuncOptions().dim(-1);
  by_hand.query = F::normalize(by_hand.query, normalize) * module->logit_scale.exp().view({2, 1, 1});
  by_hand.key = F::normalize(by_hand.key, normalize);
  expect_close(module(x), by_hand.output(module, {.scale = 1}), 1e-13);
  // The temperature is at most 100, so that training does not diverge.
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

TEST_F(MultiHead, AFullyMaskedQueryGetsTheBias) {
  auto module = random_module({8, 2});
  const auto x = random({2, 5, 8});
  const auto output =
      module(x, {}, {}, {.key_padding_mask = torch::tensor({{true}, {false}}).expand({2, 5})});
  expect_close(output[0], module->out_proj->bias.expand({5, 8}), 0);
  EXPECT_TRUE(same_bits(output[1], module(x)[1]));
}

// ---- against torch::nn::MultiheadAttention of C++

/// Returns a module of torch::nn with the options that both libraries have, in float64 with random
/// parameters.
torch::nn::MultiheadAttention torch_module(const torch::nn::MultiheadAttentionOptions& options) {
  torch::nn::MultiheadAttention module(options);
  module->to(torch::kDouble);
  const torch::NoGradGuard no_grad;
  for (auto& parameter : module->parameters()) parameter.normal_(0, 0.4);
  return module;
}

/// Copies the parameters by name; fails unless both modules have the same names and shapes.
void copy_state(const torch::nn::Module& from, torch::nn::Module& to) {
  const torch::NoGradGuard no_grad;
  const auto source = from.named_parameters();
  auto target = to.named_parameters();
  ASSERT_EQ(source.keys().size(), target.keys().size());
  for (auto& parameter : target) {
    ASSERT_TRUE(source.contains(parameter.key())) << parameter.key();
    ASSERT_EQ(source[parameter.key()].sizes(), parameter.value().sizes()) << parameter.key();
    parameter.value().copy_(source[parameter.key()]);
  }
}

struct TorchCase {
  const char* name;
  bool add_bias_kv, add_zero_attn, bias;
  int64_t kdim, vdim;
  friend void PrintTo(const TorchCase& value, std::ostream* stream) { *stream << value.name; }
};

class MultiHeadOfTorch : public MultiHead, public ::testing::WithParamInterface<TorchCase> {
 protected:
  torch::nn::MultiheadAttention theirs() const {
    const auto& test = GetParam();
    return torch_module(torch::nn::MultiheadAttentionOptions(8, 2)
                            .bias(test.bias)
                            .add_bias_kv(test.add_bias_kv)
                            .add_zero_attn(test.add_zero_attn)
                            .kdim(test.kdim)
                            .vdim(test.vdim));
  }
  MultiHeadAttention ours(bool batch_first) const {
    const auto& test = GetParam();
    return random_module(MultiHeadAttentionOptions(8, 2)
                             .bias(test.bias)
                             .add_bias_kv(test.add_bias_kv)
                             .add_zero_attn(test.add_zero_attn)
                             .kdim(test.kdim)
                             .vdim(test.vdim)
                             .batch_first(batch_first));
  }
};

TEST_P(MultiHeadOfTorch, AgreesInOutputWeightsAndGradients) {
  auto expected = theirs();
  auto ours_second = ours(/*batch_first=*/false), ours_first = ours(/*batch_first=*/true);
  copy_state(*expected, *ours_second);
  copy_state(*expected, *ours_first);
  const int64_t batch = 3, queries = 4, keys = 5;
  const auto query = random({queries, batch, 8}).requires_grad_();
  const auto key = random({keys, batch, GetParam().kdim}).requires_grad_();
  const auto value = random({keys, batch, GetParam().vdim}).requires_grad_();
  const auto is_padding = torch::tensor({{false, false, true, false, false},
                                         {false, false, false, false, false},
                                         {false, true, false, false, true}});
  // torch::nn of C++ adds masks to the scores, so that a boolean mask must be given as 0 and -inf, and has no
  // masks per head.
  const std::vector<torch::Tensor> attn_masks = {
      {}, torch::ones({queries, keys}, torch::kBool).triu(2), random({queries, keys})};
  const auto added = [](const torch::Tensor& mask) {
    if (!mask.defined() || mask.is_floating_point()) return mask;
    return torch::zeros(mask.sizes(), torch::kDouble).masked_fill(mask, -INFINITY);
  };
  for (const auto& padding : {torch::Tensor(), is_padding}) {
    for (const auto& attn_mask : attn_masks) {
      SCOPED_TRACE(c10::str("padding ", padding.defined(), ", attn_mask ", attn_mask.sizes().vec()));
      const MultiHeadAttentionParams params{.key_padding_mask = padding, .attn_mask = attn_mask};
      const auto [output, weights] = expected(query, key, value, padding, true, added(attn_mask), false);
      const auto [second, second_weights] =
          ours_second->forward_with_weights(query, key, value, params, /*average_attn_weights=*/false);
      expect_close(second, output, 1e-13);
      expect_close(second_weights, weights, 1e-14);
      if (attn_mask.defined()) {
        const auto per_head = attn_mask.expand({batch * 2, queries, keys});
        expect_close(ours_second(query, key, value, {.key_padding_mask = padding, .attn_mask = per_head}),
                     output, 1e-13);
      }
      const auto swap = [](const torch::Tensor& x) { return x.transpose(0, 1); };
      expect_close(ours_first(swap(query), swap(key), swap(value), params), swap(output), 1e-13);

      auto inputs = expected->parameters(), our_inputs = ours_second->parameters();
      for (auto* all : {&inputs, &our_inputs}) all->insert(all->end(), {query, key, value});
      const auto gradients = torch::autograd::grad({output.sin().sum()}, inputs);
      const auto our_gradients =
          torch::autograd::grad({ours_second(query, key, value, params).sin().sum()}, our_inputs);
      const auto names = expected->named_parameters().keys(),
                 our_names = ours_second->named_parameters().keys();
      for (size_t n = 0; n < names.size(); ++n) {
        const auto same = std::find(our_names.begin(), our_names.end(), names[n]) - our_names.begin();
        expect_close(our_gradients[static_cast<size_t>(same)], gradients[n], 1e-12, names[n]);
      }
      for (size_t n = names.size(); n < inputs.size(); ++n) {
        expect_close(our_gradients[n], gradients[n], 1e-12, std::to_string(n));
      }
    }
  }
}

TEST_P(MultiHeadOfTorch, LoadsItsFilesAndTheReverse) {
  auto theirs_saved = theirs(), theirs_loaded = theirs();
  auto ours_loaded = ours(/*batch_first=*/false);
  std::stringstream from_torch, to_torch;
  torch::save(theirs_saved, from_torch);
  torch::load(ours_loaded, from_torch);
  torch::save(ours_loaded, to_torch);
  torch::load(theirs_loaded, to_torch);
  for (const auto& parameter : theirs_saved->named_parameters()) {
    EXPECT_TRUE(same_bits(ours_loaded->named_parameters()[parameter.key()], parameter.value()));
    EXPECT_TRUE(same_bits(theirs_loaded->named_parameters()[parameter.key()], parameter.value()));
  }
}

INSTANTIATE_TEST_SUITE_P(MultiHead, MultiHeadOfTorch,
                         ::testing::Values(TorchCase{"plain", false, false, true, 8, 8},
                                           TorchCase{"bias_kv", true, false, true, 8, 8},
                                           TorchCase{"zero_attn", false, true, true, 8, 8},
                                           TorchCase{"both", true, true, true, 8, 8},
                                           // torch::nn of C++ requires key and value of the same width.
                                           TorchCase{"both_widths", true, true, false, 6, 6}));

TEST_F(MultiHead, InitialisesBiasKvAsTorchDoes) {
  const MultiHeadAttention module(MultiHeadAttentionOptions(1024, 4).kdim(1).vdim(1).add_bias_kv(true));
  // The values are normal with standard deviation sqrt(2 / (fan in + fan out)); both fans of [1, 1, E] are E.
  for (const auto& parameter : {module->bias_k, module->bias_v}) {
    EXPECT_NEAR(parameter.std().item<double>(), std::sqrt(2.0 / (1024 + 1024)), 0.003);
  }
}

TEST_F(MultiHead, MasksDoNotHideTheKeyOfBiasKv) {
  auto module = random_module(
      MultiHeadAttentionOptions(8, 2).add_bias_kv(true).window({1, 0}).is_causal(true).sinks(true));
  const auto x = random({2, 5, 8});
  const ByHand by_hand(module, x);
  const auto with_bias = [](const torch::Tensor& heads, const torch::Tensor& bias) {
    return torch::cat({heads, bias.view({1, 2, 1, 4}).expand({2, 2, 1, 4})}, 2);
  };
  const auto band = torch::ones({5, 5}, torch::kBool).tril().triu(-1);
  const AttentionParams params{.mask = torch::constant_pad_nd(band, {0, 1}, true), .sinks = module->sinks};
  const auto heads = attention(by_hand.query, with_bias(by_hand.key, module->bias_k),
                               with_bias(by_hand.value, module->bias_v), params);
  expect_close(module(x), module->out_proj(heads.transpose(1, 2).flatten(2)), 1e-13);
  // If a mask of the call hides every key, the key of add_bias_kv is still visible.
  const auto weights =
      std::get<1>(module->forward_with_weights(x, {}, {}, {.mask = key_lengths(torch::tensor({0, 0}))}));
  EXPECT_EQ(weights.sizes(), (std::vector<int64_t>{2, 5, 6}));
  EXPECT_EQ(weights.slice(2, 0, 5).abs().max().item<double>(), 0);
  EXPECT_GT(weights.select(2, 5).min().item<double>(), 0);
}

TEST_F(MultiHead, BiasKvRefusesACache) {
  auto module = random_module(MultiHeadAttentionOptions(8, 2).add_bias_kv(true).is_causal(true));
  auto cache = random_module({8, 2})->make_cache(2, 9);
  const torch::NoGradGuard no_grad;
  EXPECT_EQ(error_of([&] { module(random({2, 3, 8}), {}, {}, {.cache = &cache}); }),
            "attend::nn::MultiHeadAttention: cache: expected none with add_bias_kv or add_zero_attn, got a "
            "KVCache");
  EXPECT_EQ(error_of([&] { module->append(cache, random({2, 3, 8})); }),
            "attend::nn::MultiHeadAttention: cache: expected none with add_bias_kv or add_zero_attn, got a "
            "KVCache");
  EXPECT_EQ(error_of([&] { module->make_cache(2, 9); }),
            "attend::nn::MultiHeadAttention: make_cache: expected neither add_bias_kv nor add_zero_attn, got "
            "one of "
            "them");
  EXPECT_EQ(cache.lengths().sum().item<int64_t>(), 0);
}

// ---- the layout

TEST_F(MultiHead, BatchSecondSwapsInputsAndResult) {
  const torch::NoGradGuard no_grad;
  auto first = random_module(MultiHeadAttentionOptions(8, 2).is_causal(true).rotary(RotaryParams{}));
  auto options = first->options;
  MultiHeadAttention second(options.batch_first(false));
  second->to(torch::kDouble);
  copy_state(*first, *second);
  const auto swap = [](const torch::Tensor& x) { return x.transpose(0, 1); };
  const auto x = random({3, 7, 8}), memory = random({3, 5, 8});
  expect_close(second(swap(x)), swap(first(x)), 1e-13);
  expect_close(second(swap(x), swap(memory)), swap(first(x, memory)), 1e-13);
  expect_close(second(x[0]), first(x[0]), 1e-13);
  expect_close(std::get<1>(second->forward_with_weights(swap(x))),
               std::get<1>(first->forward_with_weights(x)), 1e-14);
  const auto padding = torch::rand({3, 7}) < 0.3;
  expect_close(second(swap(x), {}, {}, {.key_padding_mask = padding}),
               swap(first(x, {}, {}, {.key_padding_mask = padding})), 1e-13);
  auto cache = second->make_cache(3, 7);
  expect_close(second(swap(x).slice(0, 0, 4), {}, {}, {.cache = &cache}), swap(first(x)).slice(0, 0, 4),
               1e-13);
  expect_close(second(swap(x).slice(0, 4), {}, {}, {.cache = &cache}), swap(first(x)).slice(0, 4), 1e-13);
  auto memory_cache = second->make_cache(3, 5), expected_cache = first->make_cache(3, 5);
  second->append(memory_cache, swap(memory));
  first->append(expected_cache, memory);
  expect_close(second(swap(x), {}, {}, {.cache = &memory_cache, .update_cache = false}),
               swap(first(x, {}, {}, {.cache = &expected_cache, .update_cache = false})), 1e-13);
  EXPECT_EQ(
      error_of([&] { second(swap(x), x); }),
      "attend::nn::MultiHeadAttention: key: expected the batch size of query, 3, got float64 [3, 7, 8]");
  EXPECT_EQ(error_of([&] { second(swap(x), swap(memory), swap(x)); }),
            "attend::nn::MultiHeadAttention: value: expected the length of key, 5, got float64 [7, 3, 8]");
  EXPECT_EQ(error_of([&] { second(random({4, 2, 7})); }),
            "attend::nn::MultiHeadAttention: query: expected [L, B, 8], got float64 [4, 2, 7]");
}

// ---- decoding

TEST_F(MultiHead, StepsEqualTheWhole) {
  const torch::NoGradGuard no_grad;
  const std::map<std::string, MultiHeadAttentionOptions> cases = {
      {"plain", {8, 2}},
      {"grouped", MultiHeadAttentionOptions(8, 4).num_kv_heads(2)},
      {"rotary", MultiHeadAttentionOptions(8, 2).rotary(RotaryParams{})},
      {"alibi", MultiHeadAttentionOptions(8, 2).alibi(true)},
      {"relative bias", MultiHeadAttentionOptions(8, 2).relative_bias(RelativeBuckets{})},
      {"sinks", MultiHeadAttentionOptions(8, 2).sinks(true)},
      {"cosine_similarity", MultiHeadAttentionOptions(8, 2).cosine_similarity(true).rotary(RotaryParams{})},
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
    // After truncation, other tokens are appended.
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
    // The steps must be as accurate as one call on the whole sequence in the same dtype.
    const auto whole = module(x);
    module->to(torch::kDouble);
    const auto exact = module(x.to(torch::kDouble));
    expect_as_accurate(torch::cat(steps, 1), max_difference(whole, exact), exact, 2, torch::toString(dtype));
  }
}

TEST_F(MultiHead, ACacheKeepsItsDtypeUnderAutocast) {
  const torch::NoGradGuard no_grad;
  MultiHeadAttention module(MultiHeadAttentionOptions(16, 4)
                                .num_kv_heads(2)
                                .is_causal(true)
                                .rotary(RotaryParams{})
                                .sinks(true)
                                .relative_bias(RelativeBuckets{}));
  const auto x = torch::randn({2, 12, 16});
  const auto exact = module(x);
  const Autocast autocast(torch::kBFloat16);
  const auto whole = module(x);
  for (const auto& dtype : {std::optional<torch::ScalarType>(), {torch::kFloat}, {torch::kBFloat16}}) {
    auto cache = module->make_cache(2, 12, dtype);
    const auto mask = torch::zeros({3, 3});
    const auto first = module(x.slice(1, 0, 3), {}, {}, {.attn_mask = mask, .cache = &cache});
    EXPECT_EQ(cache.entries().key.scalar_type(), dtype.value_or(torch::kFloat));
    EXPECT_EQ(first.scalar_type(), whole.scalar_type());
    std::vector<torch::Tensor> steps = {first};
    for (int64_t n = 3; n < 12; ++n) steps.push_back(module(x.slice(1, n, n + 1), {}, {}, {.cache = &cache}));
    expect_as_accurate(torch::cat(steps, 1), max_difference(whole, exact), exact, 2, "steps");
    // The cache holds a memory, to which nothing is appended.
    const auto read = module(x, {}, {}, {.cache = &cache, .update_cache = false});
    EXPECT_EQ(read.scalar_type(), whole.scalar_type());
  }
}

TEST_F(MultiHead, ACacheMayBeNarrowerOrWiderThanItsModule) {
  const torch::NoGradGuard no_grad;
  const auto options =
      MultiHeadAttentionOptions(16, 4).is_causal(true).sinks(true).relative_bias(RelativeBuckets{});
  for (const auto& [own, other] :
       {std::pair(torch::kFloat, torch::kBFloat16), {torch::kBFloat16, torch::kFloat}}) {
    MultiHeadAttention module(options);
    module->to(own);
    const auto x = torch::randn({2, 12, 16}).to(own);
    auto cache = module->make_cache(2, 12, other);
    const auto mask = torch::zeros({12, 12}, own);
    const auto result = module(x, {}, {}, {.attn_mask = mask, .cache = &cache});
    EXPECT_EQ(result.scalar_type(), own);
    EXPECT_EQ(cache.entries().key.scalar_type(), other);
    expect_close(result, module(x), 0.05);
  }
  MultiHeadAttention module(options);
  EXPECT_EQ(error_of([&] { module->make_cache(2, 12, torch::kDouble); }),
            "attend::nn::MultiHeadAttention: dtype: expected a dtype other than float64, for parameters of "
            "float32, got float64");
  EXPECT_EQ(
      error_of([&] { module->make_cache(2, 12, torch::kLong); }),
      "attend::nn::MultiHeadAttention: options: expected dtype float64, float32, bfloat16 or float16, got "
      "int64 [2, 4, 12, 4]");
}

TEST_F(MultiHead, StepsOfDifferentSequences) {
  const torch::NoGradGuard no_grad;
  auto module = random_module(MultiHeadAttentionOptions(8, 2).is_causal(true).rotary(RotaryParams{}));
  const auto a = random({1, 9, 8}), b = random({1, 6, 8});
  auto cache = module->make_cache(2, 12);
  const auto padding = random({1, 3, 8});
  auto output = module(torch::cat({a.slice(1, 0, 5), torch::cat({padding, b.slice(1, 0, 2)}, 1)}), {}, {},
                       {.cache = &cache, .lengths = torch::tensor({5, 2})});
  expect_close(output[0], module(a)[0].slice(0, 0, 5), 1e-13);
  expect_close(output[1].slice(0, 3), module(b)[0].slice(0, 0, 2), 1e-13);
  output = module(torch::cat({a.slice(1, 5), b.slice(1, 2)}), {}, {}, {.cache = &cache});
  expect_close(output[0], module(a)[0].slice(0, 5), 1e-13);
  expect_close(output[1], module(b)[0].slice(0, 2), 1e-13);
}

TEST_F(MultiHead, AttendsToACachedMemory) {
  const torch::NoGradGuard no_grad;
  auto module = random_module(MultiHeadAttentionOptions(8, 2).kdim(6).vdim(6).rotary(RotaryParams{}));
  const auto query = random({2, 3, 8}), memory = random({2, 7, 6});
  auto cache = module->make_cache(2, 7);
  module->append(cache, memory);
  const auto hidden = torch::rand({2, 7}) < 0.3;
  for (int n = 0; n < 2; ++n) {
    expect_close(module(query, {}, {}, {.key_padding_mask = hidden, .cache = &cache, .update_cache = false}),
                 module(query, memory, {}, {.key_padding_mask = hidden}), 1e-13);
  }
}

// ---- as a module of torch::nn

TEST_F(MultiHead, SavesLoadsClonesAndWorksInSequential) {
  auto module =
      random_module(MultiHeadAttentionOptions(8, 4).num_kv_heads(2).kdim(5).cosine_similarity(true));
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

TEST_F(MultiHead, InitialisesAsPythonDoes) {
  MultiHeadAttention module(64, 4);
  EXPECT_EQ(module->in_proj_bias.abs().max().item<double>(), 0);
  EXPECT_EQ(module->out_proj->bias.abs().max().item<double>(), 0);
  // The values are uniform up to sqrt(6 / (fan in + fan out)); the largest of 12,288 values is close to this
  // bound.
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
                                 .batch_first(false)
                                 .cosine_similarity(true)
                                 .rotary(RotaryParams{})
                                 .alibi(true)
                                 .window({3, 0})
                                 .softcap(20)
                                 .relative_bias(RelativeBuckets{})
                                 .sinks(true)
                                 .is_causal(true));
  const std::string others =
      ", bias=true, kdim=5, vdim=6, dropout=0.1, batch_first=false, cosine_similarity=true, rotary=true, "
      "alibi=true, window=[3, 0], "
      "softcap=20, relative_bias=true, sinks=true, is_causal=true)(";
  EXPECT_NE(text.str().find(others), std::string::npos) << text.str();
}

TEST_F(MultiHead, GradientsAgreeWithCentralDifferences) {
  auto module = random_module(MultiHeadAttentionOptions(4, 2)
                                  .num_kv_heads(1)
                                  .cosine_similarity(true)
                                  .rotary(RotaryParams{})
                                  .is_causal(true));
  const auto x = random({2, 3, 4}).requires_grad_();
  auto inputs = module->parameters();
  inputs.push_back(x);
  // The temperature makes the third derivative large, on which the error of central differences depends.
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
            name + "num_heads: expected a divisor of the width 8, unless head_dim is set, got 3");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).num_kv_heads(3)),
            name + "num_kv_heads: expected a divisor of num_heads, 4, got 3");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).kdim(-1)), name + "kdim: expected at least 1, got -1");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).dropout(1.5)),
            name + "dropout: expected a probability in [0, 1], got 1.5");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).window({-2, 0})),
            name + "window.left: expected at least -1, got -2");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).softcap(-1)),
            name + "softcap: expected a positive number in the range of float32, got -1");
  EXPECT_EQ(
      error(MultiHeadAttentionOptions(8, 4).relative_bias(RelativeBuckets{.max_distance = 8})),
      name + "relative_bias.max_distance: expected more than the 8 distances that have a bucket each, got 8");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).alibi(true).add_bias_kv(true)),
            name + "add_bias_kv: expected false with alibi, got true");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).relative_bias(RelativeBuckets{}).add_zero_attn(true)),
            name + "add_zero_attn: expected false with relative_bias, got true");
  EXPECT_EQ(error(MultiHeadAttentionOptions(8, 4).cosine_similarity(true).add_bias_kv(true)),
            name + "add_bias_kv: expected false with cosine_similarity, got true");
  EXPECT_EQ(error(MultiHeadAttentionOptions()), name + "embed_dim: expected at least 1, got 0");
  EXPECT_EQ(error(MultiHeadAttentionOptions(9, 3).rotary(RotaryParams{})),
            name + "head_dim: expected an even integer with rotary, got 3");
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
            }).substr(0, 36),
            "attend::nn::MultiHeadAttention: mask");
  EXPECT_EQ(cache.lengths().item<int64_t>(), 3);
}

TEST_F(MultiHead, ErrorsNameTheArgument) {
  auto module = random_module(MultiHeadAttentionOptions(8, 2).kdim(6));
  const auto query = random({2, 3, 8}), key = random({2, 7, 6}), value = random({2, 7, 8});
  const auto error = [&](const MultiHeadAttentionParams& inputs) {
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
  EXPECT_EQ(error({.lengths = torch::tensor({1, 1})}),
            name + "lengths: expected none without a cache to append to, got int64 [2]");
  const torch::NoGradGuard no_grad;
  auto cache = module->make_cache(2, 2);
  EXPECT_EQ(error({.cache = &cache}),
            name + "key: expected the length of query, 3, with a cache to append to, got float64 [2, 7, 6]");
  auto self = random_module(MultiHeadAttentionOptions(8, 2).is_causal(true));
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &cache}); }),
            name + "key: expected at most 2 more tokens, of a capacity of 2 (0 are used), got 3");
  EXPECT_EQ(error_of([&] {
              self(query, {}, {}, {.key_padding_mask = torch::ones({2, 3}, torch::kBool), .cache = &cache});
            }),
            name + "key_padding_mask: expected none with a cache to append to; use lengths, got bool [2, 3]");
  auto windowed = random_module(MultiHeadAttentionOptions(8, 2).window({1, 0}))->make_cache(2, 9);
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &windowed}); }),
            name + "cache: expected a cache without a window, got a window of 2");
  auto small = self->make_cache(1, 9);
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &small}); }),
            name + "cache: expected batch 2, 2 heads of 4, got batch 1, 2 heads of 4");
  EXPECT_EQ(error_of([&] { self(query, {}, {}, {.cache = &small, .update_cache = false}); }),
            name + "cache: expected batch 2, 2 heads of 4, got batch 1, 2 heads of 4");
  auto other_heads = random_module({8, 4})->make_cache(2, 9);
  EXPECT_EQ(error_of([&] { self->append(other_heads, query); }),
            name + "cache: expected batch 2, 2 heads of 4, got batch 2, 4 heads of 2");
  auto other = random_module({8, 2});
  EXPECT_EQ(error_of([&] { other(query, {}, {}, {.cache = &cache}); }),
            name +
                "cache: expected is_causal(true), since appended keys are masked causally, got "
                "is_causal(false)");
}

TEST_F(MultiHead, OneCallCanBeCausal) {
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
