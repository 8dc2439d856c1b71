// Tests options that change after construction, arguments that can't be confused with each other, and errors
// that name the module and the argument.
#include <attend/nn/additive_attention.h>
#include <attend/nn/attention.h>
#include <attend/nn/bilinear_attention.h>
#include <attend/nn/gated_delta_net.h>
#include <attend/nn/gated_linear_attention.h>
#include <attend/nn/linear_attention.h>
#include <attend/nn/retention.h>
#include <attend/nn/transformer.h>

#include "support.h"

namespace attend::testing {
namespace {

using nn::Activation;
using nn::MultiHeadAttention;
using nn::MultiHeadAttentionOptions;
using nn::MultiHeadAttentionParams;
using nn::NormKind;
using nn::NormOptions;
using nn::Transformer;
using nn::TransformerDecoder;
using nn::TransformerDecoderLayer;
using nn::TransformerEncoder;
using nn::TransformerEncoderLayer;
using nn::TransformerLayerOptions;
using nn::TransformerOptions;
using nn::TransformerStackOptions;

class ModuleOptions : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TransformerLayerOptions small_layer() {
  return TransformerLayerOptions(8, 2).dim_feedforward(12).dropout(0.5);
}
TransformerOptions small_transformer() {
  return TransformerOptions(8, 2).dim_feedforward(12).dropout(0).num_encoder_layers(1).num_decoder_layers(1);
}

// ---- arguments that can't be confused

template <typename... Values>
concept MakesParams = requires(Values... values) { MultiHeadAttentionParams{values...}; };
template <typename Value>
concept IsMask = requires(Value value) { MultiHeadAttentionParams{.mask = value}; };

TEST_F(ModuleOptions, MasksAreGivenByName) {
  static_assert(MakesParams<>);
  static_assert(!MakesParams<torch::Tensor>);
  static_assert(!MakesParams<torch::Tensor, torch::Tensor>);
}

TEST_F(ModuleOptions, ATensorIsNoMaskWhereTrueMayAttend) {
  static_assert(IsMask<Mask>);
  static_assert(!IsMask<torch::Tensor>);
  MultiHeadAttention attention(8, 2);
  const auto x = torch::randn({1, 4, 8});
  const auto hidden = torch::ones({4, 4}, torch::kBool).triu(1);
  EXPECT_TRUE(same_bits(attention(x, {}, {}, {.attn_mask = hidden}),
                        attention(x, {}, {}, {.mask = dense(hidden.logical_not())})));
}

// ---- options

TEST_F(ModuleOptions, TheFinalNormHasOptionsOfItsOwn) {
  const auto norm = NormOptions(8).kind(NormKind::rms_norm).eps(0.25);
  Transformer transformer(small_transformer().final_norm_options(norm));
  for (const auto& part : {transformer->encoder->norm, transformer->decoder->norm}) {
    EXPECT_EQ(part->options.kind(), NormKind::rms_norm);
    EXPECT_EQ(part->options.eps(), 0.25);
  }
  const auto layer = transformer->encoder->layers->ptr<nn::TransformerEncoderLayerImpl>(0);
  EXPECT_EQ(layer->norm1->options.kind(), NormKind::layer_norm);
  const auto src = torch::randn({1, 3, 8});
  const auto x = layer->forward(src);
  expect_close(transformer->encoder(src), x / (x.square().mean(-1, true) + 0.25).sqrt(), 1e-6);
  EXPECT_EQ(error_of([&] { Transformer(small_transformer().final_norm_options(NormOptions(6))); }),
            "attend::nn::Transformer: encoder: final_norm_options: expected a norm of width 8, got 6");
  EXPECT_EQ(error_of([&] {
              TransformerEncoder(TransformerStackOptions(small_layer(), 1).final_norm_options(norm));
            }),
            "attend::nn::TransformerEncoder: final_norm_options: expected none without final_norm, got some");
}

TEST_F(ModuleOptions, DropoutOfALayerHoldsForItsAttention) {
  TransformerEncoderLayer encoder(small_layer());
  TransformerDecoderLayer decoder(small_layer());
  const auto x = torch::randn({2, 5, 8});
  encoder->eval();
  decoder->eval();
  const auto encoded = encoder(x), decoded = decoder(x, encoded);
  encoder->train();
  decoder->train();
  EXPECT_GT(max_difference(encoder(x), encoded), 1e-3);
  encoder->options.dropout(0);
  decoder->options.dropout(0);
  EXPECT_TRUE(same_bits(encoder(x), encoded));
  EXPECT_TRUE(same_bits(decoder(x, encoded), decoded));
  // The reverse: the layer has no dropout at first.
  TransformerEncoderLayer without(small_layer().dropout(0));
  without->options.dropout(1);
  without->eval();
  const auto evaluated = without(x);
  without->train();
  EXPECT_GT(max_difference(without(x), evaluated), 1e-3);
  expect_close(without(x), without->norm2(without->norm1(x)), 1e-6);
  without->options.dropout(2);
  EXPECT_EQ(error_of([&] { without(x); }),
            "attend::nn::TransformerEncoderLayer: options.dropout: expected a probability in [0, 1], got 2");
}

TEST_F(ModuleOptions, OptionsThatThePartsDoNotFitAreErrors) {
  const auto x = torch::randn({2, 5, 8});
  const auto error_after = [&](const std::function<void(TransformerLayerOptions&)>& change) {
    TransformerEncoderLayer layer(small_layer());
    change(layer->options);
    return error_of([&] { layer(x); });
  };
  const std::string begin = "attend::nn::TransformerEncoderLayer: options.";
  const std::string end = ": expected the value at construction, which the parameters fit, got another value";
  EXPECT_EQ(error_after([](auto& options) { options.activation(Activation::swiglu); }),
            begin + "activation" + end);
  EXPECT_EQ(error_after([](auto& options) { options.d_model(16); }), begin + "d_model" + end);
  EXPECT_EQ(error_after([](auto& options) { options.nhead(4); }), begin + "nhead" + end);
  EXPECT_EQ(error_after([](auto& options) { options.dim_feedforward(16); }), begin + "dim_feedforward" + end);
  EXPECT_EQ(error_after([](auto& options) { options.bias(false); }), begin + "bias" + end);
  TransformerEncoderLayer layer(small_layer());
  layer->options.activation(Activation::gelu).norm_first(true);
  EXPECT_EQ(layer(x).sizes(), x.sizes());
}

TEST_F(ModuleOptions, OptionsThatTheParametersDoNotFitAreErrors) {
  const auto x = torch::randn({2, 5, 8});
  const auto error_after = [&](const std::function<void(MultiHeadAttentionOptions&)>& change) {
    MultiHeadAttention attention(8, 2);
    change(attention->options);
    return error_of([&] { attention(x); });
  };
  const std::string begin = "attend::nn::MultiHeadAttention: options.";
  const std::string end = ": expected the value at construction, which the parameters fit, got another value";
  EXPECT_EQ(error_after([](auto& options) { options.num_heads(4); }),
            "attend::nn::MultiHeadAttention: options: expected the sizes at construction, which the "
            "parameters have, got embed_dim=8, num_heads=4, num_kv_heads=2, head_dim=4, kdim=8, vdim=8");
  EXPECT_EQ(error_after([](auto& options) { options.bias(false); }), begin + "bias" + end);
  EXPECT_EQ(error_after([](auto& options) { options.add_bias_kv(true); }), begin + "add_bias_kv" + end);
  EXPECT_EQ(error_after([](auto& options) { options.cosine_similarity(true); }),
            begin + "cosine_similarity" + end);
  EXPECT_EQ(error_after([](auto& options) { options.sinks(true); }), begin + "sinks" + end);
  EXPECT_EQ(error_after([](auto& options) { options.relative_bias(RelativeBuckets{}); }),
            begin + "relative_bias" + end);
  EXPECT_EQ(error_after([](auto& options) { options.dropout(-1); }),
            begin + "dropout: expected a probability in [0, 1], got -1");
  MultiHeadAttention attention(8, 2);
  attention->options.is_causal(true);
  EXPECT_TRUE(same_bits(attention(x), attention(x, {}, {}, {.mask = causal()})));
}

template <typename Module, typename Change, typename Call>
void expect_option_error(Module module, const std::string& name, const char* option, Change change,
                         Call call) {
  change(module->options);
  EXPECT_EQ(error_of([&] { call(module); }),
            "attend::nn::" + name + ": options." + option +
                ": expected the value at construction, which the parameters fit, got another value");
}

TEST_F(ModuleOptions, OptionsOfTheOtherModulesAreCheckedToo) {
  const auto x = torch::randn({2, 5, 8});
  const auto wider = [](auto& options) { options.embed_dim(16); };
  const auto more_heads = [](auto& options) { options.num_heads(4); };
  const auto wider_values = [](auto& options) { options.value_head_dim(16); };
  const auto mix = [&](auto& mixer) { mixer(x); };
  expect_option_error(nn::Retention(8, 2), "Retention", "embed_dim", wider, mix);
  expect_option_error(nn::Retention(8, 2), "Retention", "value_head_dim", wider_values, mix);
  expect_option_error(nn::LinearAttention(8, 2), "LinearAttention", "head_dim", more_heads, mix);
  expect_option_error(
      nn::LinearAttention(8, 2), "LinearAttention", "feature_map",
      [](auto& options) { options.feature_map(FeatureMap::random_features); }, mix);
  expect_option_error(nn::GatedLinearAttention(8, 2), "GatedLinearAttention", "head_dim", more_heads, mix);
  expect_option_error(
      nn::GatedDeltaNet(8, 2), "GatedDeltaNet", "conv_size", [](auto& options) { options.conv_size(3); },
      mix);
  const auto attend = [&](auto& module) { module(x, x, x); };
  const auto other_query = [](auto& options) { options.d_q(16); };
  const auto other_key = [](auto& options) { options.d_k(16); };
  expect_option_error(nn::Attention(8, 8, 8), "Attention", "d_q", other_query, attend);
  expect_option_error(nn::AdditiveAttention(8, 8, 8), "AdditiveAttention", "d_k", other_key, attend);
  expect_option_error(nn::BilinearAttention(8, 8), "BilinearAttention", "d_k", other_key, attend);
}

// ---- errors

TEST_F(ModuleOptions, ErrorsOfMasksNameModuleAndArgument) {
  const auto wide = torch::zeros({3, 3}, torch::kDouble), x = torch::randn({2, 3, 8});
  const auto longer = dense(torch::ones({5, 5}, torch::kBool));
  const std::string mask = "mask: expected a tensor that broadcasts";
  const auto expect_begin = [](const std::function<void()>& call, const std::string& begin) {
    EXPECT_EQ(error_of(call).substr(0, begin.size()), begin);
  };
  const std::string dtype = "expected a mask of dtype bool or float32, got float64 [3, 3]";
  MultiHeadAttention attention(8, 2);
  EXPECT_EQ(error_of([&] { attention(x, {}, {}, {.attn_mask = wide}); }),
            "attend::nn::MultiHeadAttention: attn_mask: " + dtype);
  expect_begin([&] { attention(x, {}, {}, {.mask = longer}); }, "attend::nn::MultiHeadAttention: mask: ");
  expect_begin([&] { attention(x, {}, {}, {.mask = key_lengths(torch::tensor({4, 1}))}); },
               "attend::nn::MultiHeadAttention: mask: expected lengths in 0 ... 3, got 4");
  expect_begin([&] { attention(x, {}, {}, {.mask = documents(torch::tensor({4, 1}))}); },
               "attend::nn::MultiHeadAttention: mask: expected one id per key");
  TransformerEncoderLayer layer(small_layer());
  EXPECT_EQ(error_of([&] { layer(x, {.attn_mask = wide}); }),
            "attend::nn::TransformerEncoderLayer: self_attn: attn_mask: " + dtype);
  TransformerDecoderLayer decoder(small_layer());
  EXPECT_EQ(error_of([&] { decoder(x, x, {}, {.attn_mask = wide}); }),
            "attend::nn::TransformerDecoderLayer: multihead_attn: cross.attn_mask: " + dtype);
  Transformer transformer(small_transformer());
  EXPECT_EQ(error_of([&] { transformer(x, x, {.tgt_mask = wide}); }),
            "attend::nn::Transformer: decoder.layers.0.self_attn: tgt_mask: " + dtype);
  expect_begin([&] { nn::Attention(8, 8, 8)(x, x, x, longer); }, "attend::nn::Attention: mask: ");
  expect_begin([&] { nn::Attention(8, 8, 8)->weights(x, x, longer); }, "attend::nn::Attention: mask: ");
  expect_begin([&] { nn::AdditiveAttention(8, 8, 8)(x, x, x, longer); },
               "attend::nn::AdditiveAttention: mask: ");
  expect_begin([&] { nn::BilinearAttention(8, 8)(x, x, x, longer); },
               "attend::nn::BilinearAttention: mask: ");
  const torch::NoGradGuard no_grad;
  auto cache = attention->make_cache(2, 2);
  EXPECT_EQ(error_of([&] { attention(x, {}, {}, {.cache = &cache, .is_causal = true}); }),
            "attend::nn::MultiHeadAttention: key: expected at most 2 more tokens, of a capacity of 2 (0 are "
            "used), got 3");
}

}  // namespace
}  // namespace attend::testing
