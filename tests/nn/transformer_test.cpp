// Compares the modules with torch.nn.Transformer* of Python (recorded by tests/record/record_modules.py), and
// the options that Python lacks with attention and norms that are composed by hand.
#include <attend/error.h>
#include <attend/nn/transformer.h>

#include <sstream>

#include "module_cases.h"
#include "support.h"

namespace attend::testing {
namespace {

using nn::Activation;
using nn::MultiHeadAttentionOptions;
using nn::MultiHeadAttentionParams;
using nn::Norm;
using nn::NormKind;
using nn::NormOptions;
using nn::Transformer;
using nn::TransformerDecoder;
using nn::TransformerDecoderLayer;
using nn::TransformerEncoder;
using nn::TransformerEncoderLayer;
using nn::TransformerLayerOptions;
using nn::TransformerOptions;
using nn::TransformerParams;
using nn::TransformerStackOptions;

class TransformerModules : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

torch::Tensor random(at::IntArrayRef sizes) { return torch::randn(sizes, torch::kDouble); }

/// Returns the module in float64 and evaluation mode, with random parameters.
template <typename Module>
Module random_module(Module module) {
  module->to(torch::kDouble);
  module->eval();
  const torch::NoGradGuard no_grad;
  for (auto& parameter : module->parameters()) parameter.normal_(0, 0.4);
  return module;
}

TransformerLayerOptions small_layer() { return TransformerLayerOptions(8, 2).dim_feedforward(12).dropout(0); }
TransformerOptions small_transformer() {
  return TransformerOptions(8, 2).dim_feedforward(12).dropout(0).num_encoder_layers(1).num_decoder_layers(1);
}

// ---- against Python

/// Returns the options of the recorded case with this name.
TransformerLayerOptions recorded_options(const std::string& name) {
  const auto has = [&](const char* part) { return name.find(part) != std::string::npos; };
  auto options = TransformerLayerOptions(4, 2).dim_feedforward(6).dropout(0);
  options.norm_first(has("norm_first") || has("no_bias")).bias(!has("no_bias"));
  if (has("gelu") || has("no_bias")) options.activation(Activation::gelu);
  if (has("gelu")) options.layer_norm_eps(1e-3);
  return options;
}

torch::Tensor optional(const Recorded& inputs, const std::string& name) {
  return inputs.contains(name) ? inputs.at(name) : torch::Tensor();
}

MultiHeadAttentionParams masks_of(const Recorded& inputs, const std::string& part) {
  return {.key_padding_mask = optional(inputs, part + "_key_padding_mask"),
          .attn_mask = optional(inputs, part + "_attn_mask")};
}

/// Runs `check` on each recorded case whose name begins with the prefix, and returns their number.
int for_each_recorded(const std::string& prefix,
                      const std::function<void(const std::string& name, const Recorded& recorded)>& check) {
  int count = 0;
  for (const auto& [name, recorded] : recorded_cases("modules.safetensors")) {
    if (!name.starts_with(prefix)) continue;
    SCOPED_TRACE(name);
    check(name, recorded);
    ++count;
  }
  return count;
}

Recorded output(const torch::Tensor& tensor) { return {{"output", tensor}}; }

TEST_F(TransformerModules, EncoderLayerAgreesWithPython) {
  const auto check = [](const std::string& name, const Recorded& recorded) {
    TransformerEncoderLayer layer(recorded_options(name));
    expect_as_recorded(*layer, recorded, [&](const Recorded& inputs) {
      return output(layer(inputs.at("src"), masks_of(inputs, "src")));
    });
  };
  EXPECT_EQ(for_each_recorded("encoder_layer_", check), 7);
}

TEST_F(TransformerModules, DecoderLayerAgreesWithPython) {
  const auto check = [](const std::string& name, const Recorded& recorded) {
    TransformerDecoderLayer layer(recorded_options(name));
    expect_as_recorded(*layer, recorded, [&](const Recorded& inputs) {
      return output(
          layer(inputs.at("tgt"), inputs.at("memory"), masks_of(inputs, "tgt"), masks_of(inputs, "memory")));
    });
  };
  EXPECT_EQ(for_each_recorded("decoder_layer_", check), 7);
}

TEST_F(TransformerModules, StacksAgreeWithPython) {
  for (const bool checkpointing : {false, true}) {
    const auto check_encoder = [&](const std::string& name, const Recorded& recorded) {
      TransformerEncoder stack(
          TransformerStackOptions(recorded_options(name), 2).checkpointing(checkpointing));
      expect_as_recorded(*stack, recorded, [&](const Recorded& inputs) {
        return output(stack(inputs.at("src"), masks_of(inputs, "src")));
      });
    };
    const auto check_decoder = [&](const std::string& name, const Recorded& recorded) {
      TransformerDecoder stack(
          TransformerStackOptions(recorded_options(name), 2).final_norm(true).checkpointing(checkpointing));
      expect_as_recorded(*stack, recorded, [&](const Recorded& inputs) {
        return output(stack(inputs.at("tgt"), inputs.at("memory"), masks_of(inputs, "tgt"),
                            masks_of(inputs, "memory")));
      });
    };
    EXPECT_EQ(for_each_recorded("encoder_gelu", check_encoder), 2);
    EXPECT_EQ(for_each_recorded("decoder_gelu", check_decoder), 2);
  }
}

TEST_F(TransformerModules, TransformerAgreesWithPython) {
  const auto check = [](const std::string& name, const Recorded& recorded) {
    const auto layer = recorded_options(name);
    Transformer transformer(TransformerOptions(layer.d_model(), layer.nhead())
                                .num_encoder_layers(1)
                                .num_decoder_layers(1)
                                .dim_feedforward(layer.dim_feedforward())
                                .dropout(layer.dropout())
                                .activation(layer.activation())
                                .layer_norm_eps(layer.layer_norm_eps())
                                .norm_first(layer.norm_first())
                                .bias(layer.bias()));
    expect_as_recorded(*transformer, recorded, [&](const Recorded& inputs) {
      const TransformerParams masks{.src_mask = optional(inputs, "src_attn_mask"),
                                    .tgt_mask = optional(inputs, "tgt_attn_mask"),
                                    .memory_mask = optional(inputs, "memory_attn_mask"),
                                    .src_key_padding_mask = optional(inputs, "src_key_padding_mask"),
                                    .tgt_key_padding_mask = optional(inputs, "tgt_key_padding_mask"),
                                    .memory_key_padding_mask = optional(inputs, "memory_key_padding_mask")};
      return output(transformer(inputs.at("src"), inputs.at("tgt"), masks));
    });
  };
  EXPECT_EQ(for_each_recorded("transformer_", check), 2);
}

// ---- options that Python lacks

TEST_F(TransformerModules, SwigluAndRmsNorm) {
  auto layer = random_module(TransformerEncoderLayer(
      small_layer().activation(Activation::swiglu).norm(NormKind::rms_norm).norm_first(true)));
  const auto x = random({2, 5, 8});
  const auto rms_norm = [](const torch::Tensor& y, const torch::Tensor& weight) {
    return y / (y.square().mean(-1, true) + 1e-5).sqrt() * weight;
  };
  auto expected = x + layer->self_attn(rms_norm(x, layer->norm1->weight));
  const auto y = rms_norm(expected, layer->norm2->weight);
  const auto gate = torch::linear(y, layer->linear_gate->weight, layer->linear_gate->bias);
  expected = expected + layer->linear2(gate * torch::sigmoid(gate) * layer->linear1(y));
  expect_close(layer(x), expected, 1e-12);
  EXPECT_FALSE(layer->named_parameters().contains("norm1.bias"));
}

TEST_F(TransformerModules, AttentionHasTheOptionsOfTheLayer) {
  auto attention = MultiHeadAttentionOptions().num_kv_heads(1).is_causal(true).rotary(RotaryParams{});
  auto layer = random_module(TransformerEncoderLayer(small_layer().attention(attention).bias(false)));
  EXPECT_EQ(layer->self_attn->in_proj_weight.sizes(), (std::vector<int64_t>{16, 8}));
  EXPECT_FALSE(layer->self_attn->in_proj_bias.defined());
  // The first outputs of a causal layer are the outputs for a shorter input.
  const auto x = random({2, 5, 8});
  expect_close(layer(x).slice(1, 0, 3), layer(x.slice(1, 0, 3)), 1e-13);
}

TEST_F(TransformerModules, BatchSecondAndNoBatch) {
  auto first = random_module(TransformerDecoderLayer(small_layer()));
  auto second = random_module(TransformerDecoderLayer(small_layer().batch_first(false)));
  const torch::NoGradGuard no_grad;
  for (const auto& parameter : first->named_parameters())
    second->named_parameters()[parameter.key()].copy_(parameter.value());
  const auto tgt = random({3, 4, 8}), memory = random({3, 5, 8});
  expect_close(second(tgt.transpose(0, 1), memory.transpose(0, 1)).transpose(0, 1), first(tgt, memory),
               1e-13);
  expect_close(first(tgt[1], memory[1]), first(tgt, memory)[1], 1e-13);
}

TEST_F(TransformerModules, TargetsCanBeCausal) {
  auto transformer = random_module(Transformer(small_transformer().num_decoder_layers(2)));
  const auto src = random({2, 5, 8}), tgt = random({2, 4, 8});
  const auto later = torch::ones({4, 4}, torch::kBool).triu(1);
  expect_close(transformer(src, tgt, {.tgt_is_causal = true}), transformer(src, tgt, {.tgt_mask = later}),
               1e-13);
}

TEST_F(TransformerModules, DropsOutWhileTraining) {
  auto layer = random_module(TransformerEncoderLayer(small_layer().dropout(0.5)));
  const auto x = random({2, 5, 8});
  EXPECT_TRUE(same_bits(layer(x), layer(x)));
  layer->train();
  EXPECT_GT(max_difference(layer(x), layer(x)), 1e-3);
}

TEST_F(TransformerModules, InitialisesWeightsByGlorot) {
  Transformer transformer(TransformerOptions(32, 2).num_encoder_layers(1).num_decoder_layers(1));
  // The values are uniform up to sqrt(6 / (fan in + fan out)).
  const double bound = std::sqrt(6.0 / (32 + 2048));
  const auto& weight = transformer->named_parameters()["decoder.layers.0.linear1.weight"];
  EXPECT_LE(weight.abs().max().item<double>(), bound);
  EXPECT_GT(weight.abs().max().item<double>(), 0.99 * bound);
}

TEST_F(TransformerModules, KeepsTheInitialisationOfOtherParameters) {
  auto attention = MultiHeadAttentionOptions().relative_bias(RelativeBuckets{.count = 8, .max_distance = 9});
  auto options = TransformerOptions(512, 8).dim_feedforward(8).num_encoder_layers(1).num_decoder_layers(1);
  Transformer transformer(options.attention(attention.sinks(true)));
  // T5's normal distribution has the standard deviation 1 / sqrt(512) = 0.044; Glorot's would have sqrt(2 /
  // 16) = 0.35.
  for (const auto* stack : {"encoder", "decoder"}) {
    const auto& table = transformer->named_parameters()[c10::str(stack, ".layers.0.self_attn.relative_bias")];
    EXPECT_NEAR(table.std().item<double>(), 1 / std::sqrt(512.0), 0.015) << stack;
    const auto& sinks = transformer->named_parameters()[c10::str(stack, ".layers.0.self_attn.sinks")];
    EXPECT_EQ(sinks.abs().max().item<double>(), 0) << stack;
  }
}

TEST_F(TransformerModules, ActivationsOfTheFeedForwardNetwork) {
  namespace F = torch::nn::functional;
  using Function = std::function<torch::Tensor(const torch::Tensor& hidden, const torch::Tensor& gate)>;
  const auto gelu_tanh = [](const torch::Tensor& x) {
    return 0.5 * x * (1 + (std::sqrt(2 / M_PI) * (x + 0.044715 * x.pow(3))).tanh());
  };
  const std::vector<std::pair<Activation, Function>> cases = {
      {Activation::relu, [](auto& hidden, auto&) { return hidden.clamp_min(0); }},
      {Activation::gelu,
       [](auto& hidden, auto&) { return hidden * 0.5 * (1 + (hidden / std::sqrt(2)).erf()); }},
      {Activation::gelu_tanh, [&](auto& hidden, auto&) { return gelu_tanh(hidden); }},
      {Activation::silu, [](auto& hidden, auto&) { return hidden * hidden.sigmoid(); }},
      {Activation::swiglu, [](auto& hidden, auto& gate) { return gate * gate.sigmoid() * hidden; }},
      {Activation::geglu,
       [](auto& hidden, auto& gate) { return gate * 0.5 * (1 + (gate / std::sqrt(2)).erf()) * hidden; }},
  };
  const auto x = random({2, 5, 8});
  for (const auto& [activation, function] : cases) {
    SCOPED_TRACE(static_cast<int>(activation));
    auto layer =
        random_module(TransformerEncoderLayer(small_layer().activation(activation).norm_first(true)));
    const auto residual = x + layer->self_attn(layer->norm1(x));
    const auto y = layer->norm2(residual);
    const bool has_gate = !layer->linear_gate.is_empty();
    EXPECT_EQ(has_gate, activation == Activation::swiglu || activation == Activation::geglu);
    const auto gate = has_gate ? layer->linear_gate(y) : torch::Tensor();
    expect_close(layer(x), residual + layer->linear2(function(layer->linear1(y), gate)), 1e-12);
  }
}

TEST_F(TransformerModules, NormsHaveOptionsOfTheirOwn) {
  const auto x = torch::randn({3, 4, 6}, torch::kDouble);
  auto layer_norm = random_module(Norm(6));
  expect_close(layer_norm(x), torch::layer_norm(x, {6}, layer_norm->weight, layer_norm->bias, 1e-5), 0);
  auto rms_norm = random_module(Norm(NormOptions(6).kind(NormKind::rms_norm).eps(0.1)));
  EXPECT_FALSE(rms_norm->bias.defined());
  expect_close(rms_norm(x), x / (x.square().mean(-1, true) + 0.1).sqrt() * rms_norm->weight, 1e-14);
  // The results have the same bits as those of at::rms_norm in every dtype.
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    rms_norm->to(dtype);
    const auto y = x.to(dtype);
    EXPECT_TRUE(same_bits(rms_norm(y), at::rms_norm(y, {6}, rms_norm->weight, 0.1)))
        << torch::toString(dtype);
  }
  EXPECT_EQ(error_of([] { Norm(0); }), "attend::nn::Norm: width: expected a width of at least 1, got 0");
  EXPECT_EQ(error_of([] { Norm(NormOptions(6).eps(-1)); }),
            "attend::nn::Norm: eps: expected at least 0, got -1");
}

// ---- activation checkpointing

/// Compares all gradients of a loss with and without checkpointing, from the same state of the generator.
TEST_F(TransformerModules, CheckpointingChangesNoGradient) {
  auto stack = random_module(
      TransformerEncoder(TransformerStackOptions(small_layer().dropout(0.3), 3).checkpointing(true)));
  stack->train();
  const auto x = random({2, 5, 8}).requires_grad_(), mask = random({5, 5}).requires_grad_();
  const auto gradients = [&](bool checkpointing) {
    stack->options.checkpointing(checkpointing);
    torch::manual_seed(1);
    auto inputs = stack->parameters();
    inputs.insert(inputs.end(), {x, mask});
    const auto loss = stack(x, {.attn_mask = mask}).sin().sum();
    // Equal in both cases, since the recomputation restores the generator.
    const auto next = torch::rand({1});
    auto found = torch::autograd::grad({loss}, inputs);
    EXPECT_FALSE(torch::equal(torch::rand({1}), next));
    found.insert(found.end(), {loss.detach(), next});
    return found;
  };
  const auto plain = gradients(false), checkpointed = gradients(true);
  for (size_t n = 0; n < plain.size(); ++n) EXPECT_TRUE(same_bits(checkpointed[n], plain[n])) << n;
}

TEST_F(TransformerModules, CheckpointingIsTwiceDifferentiable) {
  auto stack = random_module(TransformerEncoder(TransformerStackOptions(small_layer(), 2)));
  const auto x = random({1, 3, 8}).requires_grad_();
  const auto penalty = [&](bool checkpointing) {
    stack->options.checkpointing(checkpointing);
    const auto gradient = torch::autograd::grad({stack(x).sin().sum()}, {x}, {}, true, /*create_graph=*/true);
    auto inputs = stack->parameters();
    inputs.push_back(x);
    return torch::autograd::grad({gradient[0].square().sum()}, inputs, {}, {}, false, /*allow_unused=*/true);
  };
  const auto plain = penalty(false), checkpointed = penalty(true);
  for (size_t n = 0; n < plain.size(); ++n) {
    ASSERT_EQ(plain[n].defined(), checkpointed[n].defined()) << n;
    if (plain[n].defined()) {
      expect_close(checkpointed[n], plain[n], 1e-10 * std::max(1.0, plain[n].abs().max().item<double>()));
    }
  }
}

// ---- decoding

TEST_F(TransformerModules, EncoderStepsEqualTheWhole) {
  const torch::NoGradGuard no_grad;
  auto attention = MultiHeadAttentionOptions().is_causal(true).rotary(RotaryParams{});
  auto stack = random_module(TransformerEncoder(
      TransformerStackOptions(small_layer().attention(attention).norm_first(true), 2).final_norm(true)));
  const auto x = random({2, 9, 8});
  const auto whole = stack(x);
  auto cache = stack->make_cache(2, 9);
  int64_t first = 0;
  for (const int64_t tokens : {4, 1, 1, 3}) {
    expect_close(stack(x.slice(1, first, first + tokens), {}, &cache), whole.slice(1, first, first + tokens),
                 1e-12);
    first += tokens;
  }
  cache.truncate(2);
  expect_close(stack(x.slice(1, 2), {}, &cache), whole.slice(1, 2), 1e-12);
}

/// After 50 tokens, a cache with a window of 4 no longer stores most of the tokens.
TEST_F(TransformerModules, CachesBeginAnew) {
  const torch::NoGradGuard no_grad;
  const auto attention = MultiHeadAttentionOptions().is_causal(true).window({3, 0});
  auto stack =
      random_module(TransformerEncoder(TransformerStackOptions(small_layer().attention(attention), 2)));
  const auto x = random({2, 9, 8});
  const auto whole = stack(x);
  auto cache = stack->make_cache(2, 100);
  for (const bool resets : {false, true}) {
    stack(random({2, 50, 8}), {}, &cache);
    EXPECT_EQ(cache.length(), 50);
    resets ? cache.reset() : cache.truncate(0);
    EXPECT_EQ(cache.length(), 0);
    expect_close(stack(x.slice(1, 0, 5), {.lengths = torch::tensor({5, 5})}, &cache), whole.slice(1, 0, 5),
                 1e-12);
    EXPECT_EQ(cache.length(), 5);
    expect_close(stack(x.slice(1, 5, 6), {}, &cache), whole.slice(1, 5, 6), 1e-12);
    cache.reset();
  }
}

TEST_F(TransformerModules, AResetKeepsTheMemory) {
  const torch::NoGradGuard no_grad;
  auto stack = random_module(TransformerDecoder(TransformerStackOptions(small_layer(), 2)));
  const auto tgt = random({2, 4, 8}), memory = random({2, 5, 8});
  auto cache = stack->make_cache(memory, 9);
  const auto first = stack(tgt, {}, {}, {}, &cache);
  cache.reset();
  EXPECT_EQ(cache.length(), 0);
  EXPECT_TRUE(same_bits(stack(tgt, {}, {}, {}, &cache), first));
}

/// If the change of one cache fails, the other caches are unchanged.
TEST_F(TransformerModules, CachesChangeTogether) {
  const torch::NoGradGuard no_grad;
  auto attention = MultiHeadAttentionOptions().is_causal(true);
  auto stack =
      random_module(TransformerEncoder(TransformerStackOptions(small_layer().attention(attention), 2)));
  auto cache = stack->make_cache(2, 9);
  stack(random({2, 6, 8}), {}, &cache);
  cache.self[1].truncate(3);
  EXPECT_EQ(error_of([&] { cache.truncate(4); }),
            "attend::KVCache: lengths: expected 0 ... 3, the length of the sequence, got 4 for sequence 0");
  EXPECT_EQ(cache.self[0].lengths()[0].item<int64_t>(), 6);
  cache.self[1].select(torch::tensor({0}));
  EXPECT_EQ(error_of([&] { cache.select(torch::tensor({1, 1, 0})); }),
            "attend::TransformerCache: sequences: expected indices in 0 ... 0, got 1");
  EXPECT_EQ(cache.self[0].options().batch(), 2);
}

TEST_F(TransformerModules, StacksDecodeUnderAutocast) {
  const torch::NoGradGuard no_grad;
  auto attention = MultiHeadAttentionOptions().is_causal(true).rotary(RotaryParams{});
  TransformerEncoder encoder(TransformerStackOptions(small_layer().attention(attention), 2));
  TransformerDecoder decoder(TransformerStackOptions(small_layer(), 2));
  const auto x = torch::randn({2, 7, 8}), memory = torch::randn({2, 5, 8});
  const auto encoded = encoder(x), decoded = decoder(x, memory, {.mask = causal()});
  const Autocast autocast(torch::kBFloat16);
  const double encoder_error = max_difference(encoder(x), encoded);
  const double decoder_error = max_difference(decoder(x, memory, {.mask = causal()}), decoded);
  for (const auto& dtype : {std::optional<torch::ScalarType>(), {torch::kFloat}, {torch::kBFloat16}}) {
    auto of_encoder = encoder->make_cache(2, 7, dtype);
    auto of_decoder = decoder->make_cache(memory, 7, {}, dtype);
    for (const auto* caches : {&of_encoder.self, &of_decoder.self, &of_decoder.memory}) {
      for (const auto& cache : *caches)
        EXPECT_EQ(cache.entries().key.scalar_type(), dtype.value_or(torch::kFloat));
    }
    std::vector<torch::Tensor> encoder_steps, decoder_steps;
    for (int64_t n = 0; n < 7; ++n) {
      encoder_steps.push_back(encoder(x.slice(1, n, n + 1), {}, &of_encoder));
      decoder_steps.push_back(decoder(x.slice(1, n, n + 1), {}, {}, {}, &of_decoder));
    }
    expect_as_accurate(torch::cat(encoder_steps, 1), encoder_error, encoded, 2, "encoder");
    expect_as_accurate(torch::cat(decoder_steps, 1), decoder_error, decoded, 2, "decoder");
  }
}

TEST_F(TransformerModules, DecoderStepsEqualTheWhole) {
  const torch::NoGradGuard no_grad;
  for (const bool batch_first : {true, false}) {
    auto stack = random_module(TransformerDecoder(
        TransformerStackOptions(small_layer().batch_first(batch_first), 2).final_norm(true)));
    const int64_t length = batch_first ? 1 : 0;
    const auto laid_out = [&](const torch::Tensor& x) { return batch_first ? x : x.transpose(0, 1); };
    const auto tgt = laid_out(random({3, 7, 8})), memory = laid_out(random({3, 5, 8}));
    const auto ignored = torch::rand({3, 5}) < 0.3;
    const auto whole = stack(tgt, memory, {.mask = causal()}, {.key_padding_mask = ignored});
    auto cache = stack->make_cache(memory, 7, ignored);
    const auto step = [&](const torch::Tensor& x) { return stack(x, {}, {}, {}, &cache); };
    expect_close(step(tgt.slice(length, 0, 3)), whole.slice(length, 0, 3), 1e-12);
    expect_close(step(tgt.slice(length, 3, 4)), whole.slice(length, 3, 4), 1e-12);
    // Two beams continue the last sequence, one continues the first.
    const auto beams = torch::tensor({2, 2, 0});
    cache.select(beams);
    expect_close(step(tgt.index_select(1 - length, beams).slice(length, 4)),
                 whole.index_select(1 - length, beams).slice(length, 4), 1e-12);
  }
}

// ---- without gradients, where oneDNN computes the products

class WithoutGradients : public TransformerModules,
                         public ::testing::WithParamInterface<std::pair<Activation, bool>> {};

TEST_P(WithoutGradients, LayersAreAsAccurate) {
  const auto [activation, has_bias] = GetParam();
  TransformerEncoderLayer layer(small_layer().activation(activation).bias(has_bias));
  layer->eval();
  TransformerEncoderLayer exact(std::dynamic_pointer_cast<nn::TransformerEncoderLayerImpl>(layer->clone()));
  exact->to(torch::kDouble);
  const auto x = torch::randn({8, 5, 40}).transpose(0, 2);  // 200 rows, strided
  const auto with_gradients = layer(x);
  EXPECT_TRUE(with_gradients.requires_grad());
  const torch::NoGradGuard no_grad;
  const auto expected = exact(x.to(torch::kDouble));
  const auto without = layer(x);
  expect_as_accurate(without, max_difference(with_gradients, expected), expected, 2, "a batch");
  expect_as_accurate(layer(x[0]), max_difference(with_gradients[0], expected[0]), expected[0], 2, "few rows");
  exact->linear1->weight[3].fill_(NAN);
  exact->to(torch::kFloat);
  EXPECT_TRUE(exact(x).isnan().all().item<bool>());
  EXPECT_EQ(layer(x.slice(1, 0, 0)).sizes(), (std::vector<int64_t>{40, 0, 8}));
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    expect_as_accurate(layer(x), max_difference(with_gradients, expected), expected, 2,
                       c10::str(count, " threads"));
  }
  at::set_num_threads(threads);
  const Autocast autocast(torch::kBFloat16);
  const auto rounded = layer(x);
  EXPECT_GT(max_difference(rounded, without), 1e-4) << "not in bfloat16";
  expect_close(rounded, without, 0.1);
}

INSTANTIATE_TEST_SUITE_P(TransformerModules, WithoutGradients,
                         ::testing::Values(std::pair(Activation::relu, true),
                                           std::pair(Activation::gelu, true),
                                           std::pair(Activation::gelu, false),
                                           std::pair(Activation::swiglu, true)));

// ---- as modules of torch::nn

TEST_F(TransformerModules, SaveLoadAndClone) {
  const auto options = small_transformer().activation(Activation::swiglu);
  auto transformer = random_module(Transformer(options)), loaded = random_module(Transformer(options));
  std::stringstream stream;
  torch::save(transformer, stream);
  torch::load(loaded, stream);
  const auto src = random({2, 5, 8}), tgt = random({2, 4, 8});
  EXPECT_TRUE(same_bits(loaded(src, tgt), transformer(src, tgt)));
  Transformer copy(std::dynamic_pointer_cast<nn::TransformerImpl>(transformer->clone()));
  EXPECT_TRUE(same_bits(copy(src, tgt), transformer(src, tgt)));
  EXPECT_NE(copy->parameters()[0].data_ptr(), transformer->parameters()[0].data_ptr());
  auto layer = random_module(TransformerEncoderLayer(small_layer()));
  torch::nn::Sequential sequential(layer, layer);
  EXPECT_TRUE(same_bits(sequential->forward(src), layer(layer(src))));
}

TEST_F(TransformerModules, PrettyPrint) {
  std::ostringstream text;
  text << TransformerEncoder(TransformerStackOptions(small_layer(), 1).final_norm(true));
  EXPECT_NE(text.str().find("attend::nn::TransformerEncoder(num_layers=1, checkpointing=false)"),
            std::string::npos);
  EXPECT_NE(text.str().find("attend::nn::TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=12, "
                            "dropout=0, norm_first=false)"),
            std::string::npos);
  text << TransformerDecoderLayer(small_layer().activation(Activation::swiglu).batch_first(false));
  EXPECT_NE(text.str().find("norm_first=false, activation=swiglu, batch_first=false)"), std::string::npos);
  EXPECT_NE(text.str().find("(norm): attend::nn::Norm(layer_norm, 8, eps=1e-05)"), std::string::npos);
}

// ---- wrong input

TEST_F(TransformerModules, ErrorsNameTheArgument) {
  EXPECT_EQ(error_of([] { TransformerEncoderLayer(small_layer().dim_feedforward(0)); }),
            "attend::nn::TransformerEncoderLayer: dim_feedforward: expected at least 1, got 0");
  EXPECT_EQ(error_of([] { TransformerDecoderLayer(small_layer().layer_norm_eps(-1)); }),
            "attend::nn::TransformerDecoderLayer: layer_norm_eps: expected at least 0, got -1");
  EXPECT_EQ(error_of([] { TransformerEncoder(TransformerStackOptions(small_layer(), -1)); }),
            "attend::nn::TransformerEncoder: num_layers: expected at least 0, got -1");
  auto decoder = random_module(TransformerDecoder(TransformerStackOptions(small_layer(), 2)));
  const auto x = random({2, 3, 8});
  EXPECT_EQ(error_of([&] { decoder(x, torch::Tensor()); }),
            "attend::nn::TransformerDecoder: layers.0: memory: expected a tensor, got an undefined tensor");
  const torch::NoGradGuard no_grad;
  auto cache = decoder->make_cache(x, 4);
  EXPECT_EQ(error_of([&] { decoder(x, x, {}, {}, &cache); }),
            "attend::nn::TransformerDecoder: memory: expected none with a cache, which holds it, got float64 "
            "[2, 3, 8]");
  EXPECT_EQ(
      error_of([&] { decoder(x, x, {.cache = &cache.self[0]}); }),
      "attend::nn::TransformerDecoder: self: expected no cache of one layer, but a TransformerCache, got a "
      "KVCache");
  cache.self.pop_back();
  EXPECT_EQ(error_of([&] { decoder(x, {}, {}, {}, &cache); }),
            "attend::nn::TransformerDecoder: cache: expected a cache for each of the 2 layers, got 1");
  auto encoder = random_module(TransformerEncoder(TransformerStackOptions(small_layer(), 1)));
  auto of_encoder = encoder->make_cache(2, 4);
  EXPECT_EQ(error_of([&] { encoder(x, {}, &of_encoder); }),
            "attend::nn::TransformerEncoder: layers.0.self_attn: cache: expected is_causal(true), since "
            "appended keys are masked causally, got is_causal(false)");
}

TEST_F(TransformerModules, RefusesContradictingOptionsOfTheAttention) {
  const auto error_with = [](const MultiHeadAttentionOptions& attention) {
    return error_of([&] { TransformerEncoderLayer(small_layer().dropout(0.1).attention(attention)); });
  };
  const std::string prefix = "attend::nn::TransformerEncoderLayer: attention.";
  EXPECT_EQ(error_with({16, 2}), prefix + "embed_dim: expected the value of the layer, 8, got 16");
  EXPECT_EQ(error_with({8, 4}), prefix + "num_heads: expected the value of the layer, 2, got 4");
  EXPECT_EQ(error_with(MultiHeadAttentionOptions(8, 2).kdim(4)),
            prefix + "kdim: expected the value of the layer, 8, got 4");
  EXPECT_EQ(error_with(MultiHeadAttentionOptions().vdim(4)),
            prefix + "vdim: expected the value of the layer, 8, got 4");
  EXPECT_EQ(error_with(MultiHeadAttentionOptions().dropout(0.5)),
            prefix + "dropout: expected the value of the layer, 0.1, got 0.5");
  EXPECT_EQ(error_with(MultiHeadAttentionOptions().bias(false)),
            prefix + "bias: expected the value of the layer, true, got false");
  EXPECT_EQ(error_with(MultiHeadAttentionOptions().batch_first(false)),
            prefix + "batch_first: expected the value of the layer, true, got false");
  EXPECT_EQ(
      error_of([] { Transformer(small_transformer().attention({16, 2})); }),
      "attend::nn::Transformer: encoder.layers.0: attention.embed_dim: expected the value of the layer, 8, "
      "got 16");
  // Options with the same values as those of the layer are no error.
  TransformerEncoderLayer layer(
      small_layer().dropout(0.1).attention(MultiHeadAttentionOptions(8, 2).dropout(0.1)));
  EXPECT_EQ(layer->self_attn->options.dropout(), 0.1);
}

TEST_F(TransformerModules, ACacheOfAMemoryWithoutABatch) {
  auto decoder = random_module(TransformerDecoder(TransformerStackOptions(small_layer(), 1)));
  const torch::NoGradGuard no_grad;
  const auto memory = torch::randn({5, 8}, torch::kDouble), token = torch::randn({1, 8}, torch::kDouble);
  const auto hidden = torch::tensor({false, false, true, false, true});
  auto cache = decoder->make_cache(memory, 4, hidden);
  cache.select(torch::tensor({0}));
  expect_close(decoder(token, {}, {}, {}, &cache), decoder(token, memory, {}, {.key_padding_mask = hidden}),
               1e-12);
  EXPECT_EQ(error_of([&] { decoder->make_cache(torch::zeros({8}, torch::kDouble), 4); }),
            "attend::nn::TransformerDecoder: memory: expected [B, S, 8] or [S, 8], got float64 [8]");
}

TEST_F(TransformerModules, ErrorsNameWhatWasCalled) {
  EXPECT_EQ(error_of([] { Transformer(TransformerOptions(30, 4)); }),
            "attend::nn::Transformer: encoder.layers.0.self_attn: nhead: expected a divisor of the "
            "width 30, unless head_dim is set, got 4");
  EXPECT_EQ(error_of([] { Transformer(TransformerOptions(8, 2).num_decoder_layers(-1)); }),
            "attend::nn::Transformer: decoder: num_decoder_layers: expected at least 0, got -1");
  Transformer transformer(TransformerOptions(8, 2));
  const auto src = torch::zeros({2, 3, 8}), tgt = torch::zeros({2, 4, 8});
  const auto error_with = [&](const TransformerParams& masks) {
    return error_of([&] { transformer(src, tgt, masks); });
  };
  EXPECT_EQ(error_of([&] { transformer(torch::zeros({2, 3, 7}), tgt); }),
            "attend::nn::Transformer: encoder.layers.0: src: expected [B, L, 8], got float32 [2, 3, 7]");
  EXPECT_EQ(error_of([&] { transformer(src, torch::zeros({2, 4, 7})); }),
            "attend::nn::Transformer: decoder.layers.0: tgt: expected [B, L, 8], got float32 [2, 4, 7]");
  EXPECT_EQ(error_of([&] { transformer(src, tgt[0]); }),
            "attend::nn::Transformer: decoder.layers.0: src: expected [L, 8], got float32 [2, 3, 8]");
  EXPECT_EQ(error_with({.src_mask = torch::zeros({3, 4})}),
            "attend::nn::Transformer: encoder.layers.0.self_attn: src_mask: expected a boolean or floating "
            "tensor [3, 3] or [4, 3, 3], got "
            "float32 [3, 4]");
  EXPECT_EQ(error_with({.tgt_key_padding_mask = torch::zeros({2, 3})}),
            "attend::nn::Transformer: decoder.layers.0.self_attn: tgt_key_padding_mask: expected a boolean "
            "or floating tensor [2, 4], got "
            "float32 [2, 3]");
  EXPECT_EQ(error_with({.memory_mask = torch::zeros({3, 4})}),
            "attend::nn::Transformer: decoder.layers.0.multihead_attn: memory_mask: expected a boolean or "
            "floating tensor [4, 3] or [4, 4, 3], got "
            "float32 [3, 4]");
  TransformerDecoderLayer layer(TransformerLayerOptions(8, 2).dim_feedforward(8));
  EXPECT_EQ(error_of([&] { layer(tgt, src, {}, {.attn_mask = torch::zeros({3, 4})}); }),
            "attend::nn::TransformerDecoderLayer: multihead_attn: cross.attn_mask: expected a boolean or "
            "floating tensor [4, 3] or "
            "[4, 4, 3], got float32 [3, 4]");
  EXPECT_EQ(error_of([&] { transformer->decoder->make_cache(torch::zeros({2, 3, 7}), 4); }),
            "attend::nn::TransformerDecoder: layers.0.multihead_attn: memory: expected [B, L, 8], got "
            "float32 [2, 3, 7]");
}

TEST_F(TransformerModules, ErrorsHoldTheNameOfTheModuleThatFailed) {
  Transformer transformer(TransformerOptions(8, 2).num_encoder_layers(2).num_decoder_layers(1));
  try {
    transformer(torch::zeros({2, 3, 8}), torch::zeros({2, 4, 8}), {.tgt_mask = torch::zeros({3, 4})});
    FAIL() << "no error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.function(), "nn::Transformer");
    EXPECT_EQ(error.path(), "decoder.layers.0.self_attn");
    EXPECT_EQ(error.argument(), "tgt_mask");
    EXPECT_EQ(error.got(), "float32 [3, 4]");
    EXPECT_TRUE(transformer->named_modules().contains(error.path()));
  }
}

}  // namespace
}  // namespace attend::testing
