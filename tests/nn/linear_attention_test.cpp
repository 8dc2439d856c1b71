// Compares the mixers of linear attention with the equations of their papers, and sequences that are computed
// in parts with whole sequences.
#include <attend/nn/gated_delta_net.h>
#include <attend/nn/gated_linear_attention.h>
#include <attend/nn/linear_attention.h>
#include <attend/nn/retention.h>
#include <attend/nn/transformer.h>

#include <sstream>

#include "naive_linear_attention.h"
#include "support.h"

namespace attend::testing {
namespace {

constexpr int64_t kWidth = 12, kHeads = 2;

torch::Tensor heads_of(const torch::Tensor& projected) {
  return projected.unflatten(-1, {kHeads, -1}).transpose(1, 2);
}

torch::Tensor flat(const torch::Tensor& heads) { return heads.transpose(1, 2).flatten(2); }

torch::Tensor silu_of(const torch::Tensor& x) { return x / (1 + torch::exp(-x)); }

torch::Tensor sigmoid_of(const torch::Tensor& x) { return 1 / (1 + torch::exp(-x)); }

torch::Tensor root_mean_square(const torch::Tensor& x) { return (x.square().mean(-1, true) + 1e-5).sqrt(); }

template <typename Module>
Module in_float64(Module module) {
  module->to(torch::kDouble);
  return module;
}

class Mixers : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
  torch::Tensor x = torch::randn({2, 9, kWidth}, torch::kDouble);
};

// ---- Equations

TEST_F(Mixers, LinearAttentionFollowsItsEquation) {
  for (const bool is_causal : {true, false}) {
    auto module = in_float64(nn::LinearAttention(
        nn::LinearAttentionOptions(kWidth, kHeads).value_head_dim(5).is_causal(is_causal).bias(true)));
    const auto phi = [](const torch::Tensor& y) { return torch::where(y > 0, y + 1, y.exp()); };
    const NaiveLinearAttention naive{.normalize = true, .is_causal = is_causal};
    const auto expected = naive(phi(heads_of(module->q_proj(x))), phi(heads_of(module->k_proj(x))),
                                heads_of(module->v_proj(x)));
    expect_close(module(x), module->o_proj(flat(expected)), 1e-12);
    expect_close(module(x[1]), module(x)[1], 1e-12);
  }
}

TEST_F(Mixers, RandomFeaturesAddAProjection) {
  auto module = nn::LinearAttention(
      nn::LinearAttentionOptions(kWidth, kHeads).feature_map(FeatureMap::random_features).num_features(7));
  EXPECT_EQ(module->projection.sizes(), at::IntArrayRef({7, 6}));
  EXPECT_EQ(module->named_buffers().size(), 1U);
  EXPECT_EQ(module(x.to(torch::kFloat)).sizes(), x.sizes());
}

/// Rotates the pair of channels i and i + 3, of six, by the angle position * 10000^(-i / 3).
torch::Tensor rotated(const torch::Tensor& heads) {
  const auto frequency = torch::pow(10000, -torch::arange(3, torch::kDouble) / 3);
  const auto angle = torch::arange(heads.size(2), torch::kDouble).unsqueeze(-1) * frequency;
  const auto halves = heads.chunk(2, -1);
  return torch::cat(
      {halves[0] * angle.cos() - halves[1] * angle.sin(), halves[0] * angle.sin() + halves[1] * angle.cos()},
      -1);
}

TEST_F(Mixers, RetentionFollowsItsEquation) {
  auto module = in_float64(nn::Retention(kWidth, kHeads));
  const auto gamma = torch::tensor({1 - 1.0 / 32, 1 - 1.0 / 64}, torch::kDouble);
  const NaiveLinearAttention naive{.scale = 1 / std::sqrt(6.0),
                                   .decay = gamma.view({1, 2, 1, 1}).expand({2, 2, 9, 6})};
  const auto heads = naive(rotated(heads_of(module->q_proj(x))), rotated(heads_of(module->k_proj(x))),
                           heads_of(module->v_proj(x)));
  const auto centred = heads - heads.mean(-1, true);
  const auto expected =
      module->o_proj(silu_of(module->g_proj(x)) * flat(centred / root_mean_square(centred)));
  expect_close(module(x), expected, 1e-11);
}

TEST_F(Mixers, GatedLinearAttentionFollowsItsEquation) {
  auto module = in_float64(nn::GatedLinearAttention(kWidth, kHeads));
  torch::NoGradGuard no_grad;
  module->g_norm_weight.uniform_();
  const auto gate = sigmoid_of(module->gk_proj_up(module->gk_proj_down(x)));
  const NaiveLinearAttention naive{.scale = 1 / std::sqrt(3.0), .decay = heads_of(gate.pow(1.0 / 16))};
  const auto heads =
      naive(heads_of(module->q_proj(x)), heads_of(module->k_proj(x)), heads_of(module->v_proj(x)));
  const auto normed = heads / root_mean_square(heads) * module->g_norm_weight;
  expect_close(module(x), module->o_proj(silu_of(module->g_proj(x)) * flat(normed)), 1e-11);
}

/// Returns the sum over n of weight_cn x_{t - size + 1 + n, c}.
torch::Tensor convolved(const torch::Tensor& projected, const torch::Tensor& weight) {
  auto sum = torch::zeros_like(projected);
  const int64_t size = weight.size(1), length = projected.size(1);
  for (int64_t n = 0; n < size; ++n) {
    const int64_t back = size - 1 - n;
    if (back >= length) continue;
    sum.slice(1, back) += weight.select(1, n) * projected.slice(1, 0, length - back);
  }
  return silu_of(sum);
}

TEST_F(Mixers, GatedDeltaNetFollowsItsEquation) {
  auto module = in_float64(nn::GatedDeltaNet(kWidth, kHeads));
  torch::NoGradGuard no_grad;
  module->o_norm_weight.uniform_();
  const auto unit = [](const torch::Tensor& y) { return y / (y.square().sum(-1, true) + 1e-6).sqrt(); };
  const auto step_size = (1 + (module->a_proj(x) + module->dt_bias).exp()).log();
  const auto decay = (-module->A_log.exp() * step_size).exp().transpose(1, 2).unsqueeze(-1);
  const NaiveLinearAttention naive{.scale = 1 / std::sqrt(6.0),
                                   .decay = decay.expand({2, kHeads, 9, 6}),
                                   .beta = sigmoid_of(module->b_proj(x)).transpose(1, 2)};
  const auto heads = naive(unit(heads_of(convolved(module->q_proj(x), module->q_conv))),
                           unit(heads_of(convolved(module->k_proj(x), module->k_conv))),
                           heads_of(convolved(module->v_proj(x), module->v_conv)));
  const auto normed = heads / root_mean_square(heads) * module->o_norm_weight;
  expect_close(module(x), module->o_proj(silu_of(module->g_proj(x)) * flat(normed)), 1e-11);
}

// ---- States

/// Compares a whole sequence with every division into two parts, and with single tokens.
template <typename Module>
void expect_parts_equal_whole(Module module, const torch::Tensor& x) {
  const auto whole = module(x);
  for (int64_t at = 0; at <= x.size(1); ++at) {
    RecurrentState state;
    const auto first = module(x.slice(1, 0, at), &state), second = module(x.slice(1, at), &state);
    expect_close(torch::cat({first, second}, 1), whole, 1e-11, c10::str("split at ", at));
    EXPECT_EQ(state.length, x.size(1));
  }
  const torch::NoGradGuard no_grad;
  RecurrentState state;
  std::vector<torch::Tensor> tokens;
  for (const auto& token : x.split(1, 1)) tokens.push_back(module(token, &state));
  expect_close(torch::cat(tokens, 1), whole, 1e-11, "token by token");
}

TEST_F(Mixers, PartsEqualTheWhole) {
  const nn::LinearAttentionOptions options(kWidth, kHeads);
  expect_parts_equal_whole(in_float64(nn::LinearAttention(options)), x);
  expect_parts_equal_whole(in_float64(nn::LinearAttention(
                               nn::LinearAttentionOptions(options).feature_map(FeatureMap::random_features))),
                           x);
  expect_parts_equal_whole(in_float64(nn::Retention(kWidth, kHeads)), x);
  expect_parts_equal_whole(in_float64(nn::GatedLinearAttention(kWidth, kHeads)), x);
  expect_parts_equal_whole(in_float64(nn::GatedDeltaNet(kWidth, kHeads)), x);
  expect_parts_equal_whole(
      in_float64(nn::GatedDeltaNet(nn::GatedDeltaNetOptions(kWidth, kHeads).conv_size(1))), x);
}

/// Tests that a snapshot continues from the token at which it was taken, whatever the original state reads
/// next.
template <typename Module>
void expect_snapshots_are_independent(Module module, const torch::Tensor& x) {
  const torch::NoGradGuard no_grad;
  for (const int64_t tokens : {1, 4}) {
    RecurrentState state;
    module(x.slice(1, 0, 5), &state);
    auto snapshot = state.clone();
    const auto expected = module(x.slice(1, 5, 5 + tokens), &state);
    EXPECT_EQ(snapshot.length, 5);
    EXPECT_TRUE(torch::equal(module(x.slice(1, 5, 5 + tokens), &snapshot), expected)) << tokens;
    EXPECT_TRUE(torch::equal(snapshot.memory, state.memory)) << tokens;
  }
}

TEST_F(Mixers, SnapshotsOfAStateAreIndependent) {
  expect_snapshots_are_independent(in_float64(nn::LinearAttention(kWidth, kHeads)), x);
  expect_snapshots_are_independent(in_float64(nn::Retention(kWidth, kHeads)), x);
  expect_snapshots_are_independent(in_float64(nn::GatedLinearAttention(kWidth, kHeads)), x);
  expect_snapshots_are_independent(in_float64(nn::GatedDeltaNet(kWidth, kHeads)), x);
}

TEST_F(Mixers, ASingleTokenUpdatesTheMemoryInPlace) {
  const torch::NoGradGuard no_grad;
  auto module = in_float64(nn::Retention(kWidth, kHeads));
  RecurrentState state;
  module(x.slice(1, 0, 5), &state);
  const auto* const memory = state.memory.data_ptr();
  for (int64_t t = 5; t < 9; ++t) module(x.slice(1, t, t + 1), &state);
  EXPECT_EQ(state.memory.data_ptr(), memory);
}

// ---- Transformers

/// Returns an encoder that repeats three layers with different mixers and one with softmax attention.
nn::TransformerEncoder hybrid(int64_t num_layers, bool checkpointing = false) {
  const std::vector<nn::MixerFactory> mixers = {
      nn::as_mixer<nn::GatedDeltaNet>(nn::GatedDeltaNetOptions(kWidth, kHeads)),
      nn::as_mixer<nn::Retention>(nn::RetentionOptions(kWidth, kHeads)),
      nn::as_mixer<nn::LinearAttention>(nn::LinearAttentionOptions(kWidth, kHeads)), nullptr};
  const auto attention = nn::MultiHeadAttentionOptions().is_causal(true).rotary(RotaryParams{});
  const auto layer = nn::TransformerLayerOptions(kWidth, kHeads)
                         .dim_feedforward(20)
                         .dropout(0)
                         .norm_first(true)
                         .attention(attention);
  torch::manual_seed(1);
  return in_float64(nn::TransformerEncoder(
      nn::TransformerStackOptions(layer, num_layers).mixers(mixers).checkpointing(checkpointing)));
}

TEST_F(Mixers, ReplaceTheSelfAttentionOfALayer) {
  auto stack = hybrid(5);
  auto expected = x;
  const auto residual = [&](nn::TransformerEncoderLayerImpl& layer, const torch::Tensor& mixed) {
    const auto y = expected + mixed;
    expected = y + layer.linear2(torch::relu(layer.linear1(layer.norm2(y))));
  };
  for (size_t n = 0; n < 5; ++n) {
    auto& layer = *stack->layers->ptr<nn::TransformerEncoderLayerImpl>(n);
    EXPECT_EQ(layer.mixer.is_empty(), n == 3) << n;
    EXPECT_EQ(layer.self_attn.is_empty(), n != 3) << n;
    const auto y = layer.norm1(expected);
    if (n == 0 || n == 4) residual(layer, layer.mixer.get<nn::GatedDeltaNet>()(y));
    if (n == 1) residual(layer, layer.mixer.get<nn::Retention>()(y));
    if (n == 2) residual(layer, layer.mixer.get<nn::LinearAttention>()(y));
    if (n == 3) residual(layer, layer.self_attn(y));
  }
  expect_close(stack(x), expected, 1e-12);
  expect_close(stack(x[1]), stack(x)[1], 1e-12);
  EXPECT_TRUE(stack->named_parameters().contains("layers.0.mixer.A_log"));
}

TEST_F(Mixers, MoreMixersThanLayersAreAnError) {
  EXPECT_EQ(error_of([] { hybrid(3); }),
            "attend::nn::TransformerEncoder: mixers: expected at most one for each of the 3 layers, got 4");
}

TEST_F(Mixers, StacksDecode) {
  const torch::NoGradGuard no_grad;
  auto stack = hybrid(4);
  const auto whole = stack(x);
  auto cache = stack->make_cache(2, 9);
  EXPECT_EQ(cache.self.size(), 1U);
  EXPECT_EQ(cache.recurrent.size(), 3U);
  const auto decode = [&](const torch::Tensor& input, const torch::Tensor& expected) {
    int64_t first = 0;
    for (const int64_t tokens : {4, 1, 1}) {
      expect_close(stack(input.slice(1, first, first + tokens), {}, &cache),
                   expected.slice(1, first, first + tokens), 1e-11);
      first += tokens;
    }
  };
  decode(x, whole);
  auto snapshot = cache.clone();
  const auto next = stack(x.slice(1, 6, 7), {}, &cache);
  EXPECT_TRUE(torch::equal(stack(x.slice(1, 6, 7), {}, &snapshot), next));
  cache.truncate(0);
  decode(x, whole);
  cache.truncate(6);
  EXPECT_EQ(error_of([&] { cache.truncate(5); }),
            "attend::TransformerCache: length: expected 0 or 6, the current length: a mixer's state can't be "
            "truncated, got 5");
  cache.truncate(0);
  decode(x, whole);
  const auto beams = torch::tensor({1, 1, 0});
  cache.select(beams);
  expect_close(stack(x.index_select(0, beams).slice(1, 6), {}, &cache),
               whole.index_select(0, beams).slice(1, 6), 1e-11);
  cache.recurrent.pop_back();
  EXPECT_EQ(
      error_of([&] { stack(x, {}, &cache); }),
      "attend::nn::TransformerEncoder: cache.recurrent: expected a cache for each of the 3 layers, got 2");
}

TEST_F(Mixers, StacksTrainSaveAndClone) {
  auto plain = hybrid(4), checkpointed = hybrid(4, true);
  plain(x).square().sum().backward();
  checkpointed(x).square().sum().backward();
  for (size_t n = 0; n < plain->parameters().size(); ++n) {
    const auto gradient = plain->parameters()[n].grad();
    expect_close(checkpointed->parameters()[n].grad(), gradient,
                 1e-10 * std::max(1.0, gradient.abs().max().item<double>()),
                 plain->named_parameters().keys()[n]);
  }
  std::stringstream stream;
  torch::save(plain, stream);
  torch::load(checkpointed, stream);
  expect_close(checkpointed(x), plain(x), 0);
  nn::TransformerEncoder copy(std::dynamic_pointer_cast<nn::TransformerEncoderImpl>(plain->clone()));
  expect_close(copy(x), plain(x), 0);
  EXPECT_NE(copy->parameters()[0].data_ptr(), plain->parameters()[0].data_ptr());
}

TEST_F(Mixers, AFailedCallLeavesTheStateUnchanged) {
  const torch::NoGradGuard no_grad;
  auto retention = in_float64(nn::Retention(kWidth, kHeads));
  auto delta_net = in_float64(nn::GatedDeltaNet(kWidth, kHeads));
  RecurrentState retention_state, delta_net_state;
  retention(x, &retention_state);
  delta_net(x, &delta_net_state);
  const auto recent = delta_net_state.recent.clone();
  for (const int64_t length : {1, 5}) {
    const auto other = torch::randn({3, length, kWidth}, torch::kDouble);
    EXPECT_EQ(
        error_of([&] { retention(other, &retention_state); }),
        "attend::nn::Retention: state: expected a tensor `memory` of float64 [3, 2, 6, 12], got float64 "
        "[2, 2, 6, 12]");
    EXPECT_EQ(
        error_of([&] { delta_net(other, &delta_net_state); }),
        "attend::nn::GatedDeltaNet: state: expected a tensor `memory` of float64 [3, 2, 6, 12], got float64 "
        "[2, 2, 6, 12]");
  }
  EXPECT_EQ(retention_state.length, 9);
  EXPECT_EQ(delta_net_state.length, 9);
  EXPECT_TRUE(same_bits(delta_net_state.recent, recent));

  auto stack = hybrid(4);  // only the layer with softmax attention has a capacity
  auto cache = stack->make_cache(2, 10);
  stack(x, {}, &cache);
  EXPECT_NE(error_of([&] { stack(x, {}, &cache); }).find("expected at most 1 more tokens"),
            std::string::npos);
  for (const auto& state : cache.recurrent) EXPECT_EQ(state.length, 9);
}

TEST_F(Mixers, LayersRefuseMasksBesideAMixer) {
  auto stack = hybrid(4);
  const std::string prefix = "attend::nn::TransformerEncoder: ";
  EXPECT_EQ(error_of([&] { stack(x, {.mask = causal()}); }),
            prefix + "layers.0: mask: expected none with a mixer, which is causal by itself, got one");
  EXPECT_EQ(
      error_of([&] { stack(x, {.key_padding_mask = torch::zeros({2, 9}, torch::kBool)}); }),
      prefix + "layers.0: key_padding_mask: expected none with a mixer, which is causal by itself, got one");
  auto layer = in_float64(nn::TransformerEncoderLayer(kWidth, kHeads));
  RecurrentState state;
  EXPECT_EQ(
      error_of([&] { layer(x, {}, &state); }),
      "attend::nn::TransformerEncoderLayer: state: expected none without a mixer, got a RecurrentState");
  const auto options = nn::TransformerLayerOptions(kWidth, kHeads)
                           .mixer(nn::as_mixer<nn::Retention>(nn::RetentionOptions(kWidth, kHeads)));
  EXPECT_EQ(error_of([&] { nn::TransformerDecoderLayer{options}; }),
            "attend::nn::TransformerDecoderLayer: mixer: expected none in a layer of a decoder, got one");
}

// ---- Modules and errors

template <typename Module>
void expect_trains(Module module, const torch::Tensor& x, size_t parameters) {
  EXPECT_EQ(module->parameters().size(), parameters) << module;
  module(x).square().sum().backward();
  for (const auto& parameter : module->named_parameters()) {
    EXPECT_TRUE(parameter->grad().defined() && parameter->grad().isfinite().all().template item<bool>() &&
                parameter->grad().abs().max().template item<double>() > 0)
        << module << ": " << parameter.key();
  }
  const auto copy = std::dynamic_pointer_cast<typename Module::ContainedType>(module->clone());
  expect_close(copy->forward(x), module(x), 0);
}

TEST_F(Mixers, EveryParameterGetsAGradient) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    const auto input = x.to(dtype);
    const auto converted = [&](auto module) {
      module->to(dtype);
      return module;
    };
    expect_trains(converted(nn::LinearAttention(kWidth, kHeads)), input, 4);
    expect_trains(converted(nn::Retention(kWidth, kHeads)), input, 5);
    expect_trains(converted(nn::GatedLinearAttention(kWidth, kHeads)), input, 9);
    expect_trains(converted(nn::GatedDeltaNet(kWidth, kHeads)), input, 13);
  }
}

TEST_F(Mixers, RefuseTheStateOfAnotherModule) {
  auto module = in_float64(nn::GatedDeltaNet(kWidth, kHeads));
  auto shorter = in_float64(nn::GatedDeltaNet(nn::GatedDeltaNetOptions(kWidth, kHeads).conv_size(2)));
  auto other = in_float64(nn::LinearAttention(kWidth, kHeads));
  auto narrow = nn::GatedDeltaNet(kWidth, kHeads);
  RecurrentState state;
  module(x, &state);
  const std::string prefix = "attend::nn::GatedDeltaNet: state: expected a tensor ";
  EXPECT_EQ(error_of([&] { shorter(x, &state); }),
            prefix + "`recent` of float64 [2, 1, 48], got float64 [2, 3, 48]");
  EXPECT_EQ(error_of([&] { narrow(x.to(torch::kFloat), &state); }),
            prefix + "`memory` of float32 [2, 2, 6, 12], got float64 [2, 2, 6, 12]");
  EXPECT_EQ(
      error_of([&] { other(x, &state); }),
      "attend::nn::LinearAttention: state: expected a tensor `memory` of float64 [2, 2, 6, 7], got float64 "
      "[2, 2, 6, 12]");
  state.recent = torch::Tensor();
  EXPECT_EQ(error_of([&] { module(x, &state); }),
            prefix + "`recent` of float64 [2, 3, 48], got an undefined tensor");
}

/// The memory is float32 for both float32 and bfloat16 inputs, so a model may change its dtype between two
/// parts.
TEST_F(Mixers, ContinueInBfloat16) {
  const torch::NoGradGuard no_grad;
  auto module = nn::GatedDeltaNet(kWidth, kHeads);
  RecurrentState state;
  module(x.to(torch::kFloat), &state);
  module->to(torch::kBFloat16);
  EXPECT_EQ(module(x.to(torch::kBFloat16), &state).scalar_type(), torch::kBFloat16);
}

TEST_F(Mixers, ErrorsNameTheArgument) {
  auto module = in_float64(nn::GatedDeltaNet(kWidth, kHeads));
  EXPECT_EQ(error_of([&] { module(torch::randn({2, 9, 5}, torch::kDouble)); }),
            "attend::nn::GatedDeltaNet: input: expected [B, L, 12], got float64 [2, 9, 5]");
  EXPECT_EQ(error_of([] { nn::Retention(kWidth, 5); }),
            "attend::nn::Retention: num_heads: expected a divisor of embed_dim, 12, or a head_dim, got 5");
  EXPECT_EQ(error_of([] { nn::Retention(nn::RetentionOptions(kWidth, 4)); }),
            "attend::nn::Retention: head_dim: expected an even integer, got 3");
  EXPECT_EQ(
      error_of([] { nn::LinearAttention(nn::LinearAttentionOptions(kWidth, 2).num_features(4)); }),
      "attend::nn::LinearAttention: num_features: expected 0 without FeatureMap::random_features, got 4");
  EXPECT_EQ(error_of([] {
              nn::GatedLinearAttention(nn::GatedLinearAttentionOptions(kWidth, 2).gate_temperature(0));
            }),
            "attend::nn::GatedLinearAttention: gate_temperature: expected a value above 0, got 0");
  EXPECT_EQ(error_of([&] {
              RecurrentState state;
              in_float64(nn::LinearAttention(nn::LinearAttentionOptions(kWidth, 2).is_causal(false)))(x,
                                                                                                      &state);
            }),
            "attend::nn::LinearAttention: state: expected none unless is_causal is true, got a state");
}

}  // namespace
}  // namespace attend::testing
