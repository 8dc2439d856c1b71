// Tests that a refused call changes nothing. Wrong values of every argument of every stack are tried, with
// and without caches, in evaluation and in training with dropout. Caches, the generator and the next valid
// step must stay the same, bit for bit.
#include <attend/error.h>
#include <attend/nn/gated_delta_net.h>
#include <attend/nn/gated_linear_attention.h>
#include <attend/nn/linear_attention.h>
#include <attend/nn/retention.h>
#include <attend/nn/transformer.h>

#include "support.h"

namespace attend::testing {
namespace {

using nn::MultiHeadAttentionOptions;
using nn::MultiHeadAttentionParams;
using nn::TransformerLayerOptions;
using nn::TransformerOptions;
using nn::TransformerParams;
using nn::TransformerStackOptions;

constexpr int64_t kBatch = 2, kWidth = 8, kHeads = 2, kCached = 4, kTokens = 3, kSource = 5, kCapacity = 9;

torch::Tensor random(at::IntArrayRef sizes) { return torch::randn(sizes); }

/// The arguments of a call besides its caches.
struct Args {
  torch::Tensor input = random({kBatch, kTokens, kWidth});
  torch::Tensor memory = random({kBatch, kSource, kWidth});
  MultiHeadAttentionParams self = {}, cross = {};
  TransformerParams masks = {};
};

/// A module, a valid call, and the caches that the call continues. A single layer has its cache in `self[0]`,
/// `memory[0]` or `recurrent[0]`.
struct Stack {
  std::shared_ptr<torch::nn::Module> module;
  std::function<torch::Tensor(const Args& args, TransformerCache& cache)> call;
  TransformerCache cache = {};
  Args right = {};
};

/// A change that makes the valid call wrong.
struct Wrong {
  std::string name;
  std::function<void(Args& args, TransformerCache& cache)> apply;
};
using Wrongs = std::vector<Wrong>;

// ---- what must not change

bool same_tensor(const torch::Tensor& left, const torch::Tensor& right) {
  if (!left.defined() || !right.defined()) return left.defined() == right.defined();
  if (left.is_meta() || left.is_sparse()) return true;  // there are no values to compare
  return same_bits(left, right);
}

void expect_same(const std::vector<KVCache>& left, const std::vector<KVCache>& right) {
  for (size_t n = 0; n < right.size(); ++n) {
    const auto a = left[n].entries(), b = right[n].entries();
    EXPECT_TRUE(torch::equal(left[n].lengths(), right[n].lengths())) << "layer " << n;
    EXPECT_TRUE(same_tensor(a.key, b.key) && same_tensor(a.value, b.value)) << "layer " << n;
  }
}

void expect_same(const TransformerCache& left, const TransformerCache& right) {
  expect_same(left.self, right.self);
  expect_same(left.memory, right.memory);
  for (size_t n = 0; n < right.recurrent.size(); ++n) {
    const auto &a = left.recurrent[n], &b = right.recurrent[n];
    EXPECT_EQ(a.length, b.length);
    EXPECT_TRUE(same_tensor(a.memory, b.memory) && same_tensor(a.recent, b.recent)) << "mixer " << n;
  }
}

torch::Tensor generator_state() { return at::detail::getDefaultCPUGenerator().get_state(); }

void set_generator_state(const torch::Tensor& state) {
  auto generator = at::detail::getDefaultCPUGenerator();
  generator.set_state(state);
}

/// Runs the valid call on a copy of the caches.
torch::Tensor next_step(const Stack& stack, const TransformerCache& cache, const torch::Tensor& state) {
  auto copy = cache.clone();
  set_generator_state(state);
  return stack.call(stack.right, copy);
}

void expect_refused(const Stack& stack, const Wrong& wrong) {
  SCOPED_TRACE(wrong.name);
  const auto state = generator_state();
  const auto expected = next_step(stack, stack.cache, state);
  auto args = stack.right;
  auto cache = stack.cache.clone();
  wrong.apply(args, cache);
  const auto before = cache.clone();
  set_generator_state(state);
  EXPECT_THROW(stack.call(args, cache), Error);
  EXPECT_TRUE(torch::equal(generator_state(), state)) << "the generator has moved";
  expect_same(cache, before);
  EXPECT_TRUE(same_bits(next_step(stack, stack.cache, state), expected)) << "the next step differs";
  set_generator_state(state);
}

void expect_all_refused(const Stack& stack, const Wrongs& wrongs) {
  for (const bool is_training : {false, true}) {
    SCOPED_TRACE(is_training ? "training" : "evaluation");
    stack.module->train(is_training);
    for (const auto& wrong : wrongs) expect_refused(stack, wrong);
  }
}

// ---- wrong arguments

using TensorOf = std::function<torch::Tensor&(Args& args)>;

/// Returns variants of the tensor that are wrong for every argument.
std::vector<std::pair<std::string, torch::Tensor>> wrong_variants(const torch::Tensor& right) {
  return {{"longer", torch::cat({right, right}, -1)},
          {"of another rank", right.unsqueeze(0).unsqueeze(0)},
          {"int64", right.to(torch::kLong)},
          {"float64", right.to(torch::kDouble)},
          {"float16", right.to(torch::kHalf)},
          {"complex", right.to(torch::kComplexFloat)},
          {"on another device", right.to(torch::kMeta)},
          {"sparse", right.to_sparse()}};
}

Wrongs operator+(Wrongs left, const Wrongs& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

Wrongs wrong_tensor(const std::string& name, const TensorOf& field, const torch::Tensor& right) {
  Wrongs wrongs;
  for (const auto& [what, tensor] : wrong_variants(right)) {
    wrongs.push_back({c10::str(name, ": ", what),
                      [=, value = tensor](Args& args, TransformerCache&) { field(args) = value; }});
  }
  return wrongs;
}

/// Returns wrong variants of an input [B, L, E], whose batch size may have to be that of other arguments.
Wrongs wrong_input(const std::string& name, const TensorOf& field, const torch::Tensor& right,
                   bool shares_batch = true) {
  auto wrongs = wrong_tensor(name, field, right);
  const auto add = [&](const char* what, const torch::Tensor& tensor) {
    wrongs.push_back(
        {c10::str(name, ": ", what), [=](Args& args, TransformerCache&) { field(args) = tensor; }});
  };
  add("undefined", {});
  if (shares_batch) add("of another batch", torch::cat({right, right}, 0));
  return wrongs;
}

/// Returns wrong masks of `params`, for scores [B, H, kTokens, keys].
Wrongs wrong_masks(const std::string& name,
                   const std::function<MultiHeadAttentionParams&(Args& args)>& params, int64_t keys) {
  auto wrongs =
      wrong_tensor(
          name + ".attn_mask", [=](Args& args) -> auto& { return params(args).attn_mask; },
          torch::zeros({kTokens, keys})) +
      wrong_tensor(
          name + ".attn_mask of each head", [=](Args& args) -> auto& { return params(args).attn_mask; },
          torch::zeros({kBatch * kHeads, kTokens, keys})) +
      wrong_tensor(
          name + ".key_padding_mask", [=](Args& args) -> auto& { return params(args).key_padding_mask; },
          torch::zeros({kBatch, keys}));
  const std::vector<std::pair<const char*, Mask>> masks = {
      {"dense of another length", dense(torch::ones({kTokens, keys + 1}, torch::kBool))},
      {"dense on another device", dense(torch::ones({kTokens, keys}, torch::kBool).to(torch::kMeta))},
      {"key_lengths of another batch", key_lengths(torch::ones({kBatch + 1}, torch::kLong))},
      {"key_lengths that are too long", causal() & key_lengths(torch::full({kBatch}, keys + 1))},
      {"prefix of another batch", causal() | prefix(torch::ones({kBatch + 1}, torch::kLong))},
      {"documents of another length", documents(torch::zeros({keys + 1}, torch::kLong))}};
  for (const auto& [what, mask] : masks) {
    wrongs.push_back({c10::str(name, ".mask: ", what),
                      [=, value = mask](Args& args, TransformerCache&) { params(args).mask = value; }});
  }
  return wrongs;
}

MultiHeadAttentionParams& self_of(Args& args) { return args.self; }
MultiHeadAttentionParams& cross_of(Args& args) { return args.cross; }

/// Returns wrong lengths of `self`, for a call with or without a cache.
Wrongs wrong_lengths(bool has_cache) {
  const auto add = [](const char* what, const torch::Tensor& lengths) {
    return Wrong{c10::str("lengths: ", what),
                 [=](Args& args, TransformerCache&) { args.self.lengths = lengths; }};
  };
  if (!has_cache) return {add("without a cache", torch::tensor({1, 2}))};
  return {add("too long", torch::tensor({int64_t(1), kTokens + 1})),
          add("negative", torch::tensor({-1, 1})),
          add("of another batch", torch::tensor({1, 1, 1})),
          add("int32", torch::tensor({1, 1}, torch::kInt)),
          add("of another rank", torch::tensor({{1, 1}})),
          add("floating", torch::tensor({1.0, 1.0})),
          add("on another device", torch::ones({kBatch}, torch::kLong).to(torch::kMeta))};
}

KVCacheOptions cache_options() {
  return KVCacheOptions(kHeads, kWidth / kHeads).batch(kBatch).capacity(kCapacity);
}

/// Returns wrong caches in place of the last one of `caches`.
Wrongs wrong_caches(const std::string& name, std::vector<KVCache> TransformerCache::*caches) {
  const std::vector<std::pair<const char*, KVCacheOptions>> options = {
      {"of another batch", cache_options().batch(kBatch + 1)},
      {"of other heads", KVCacheOptions(kHeads + 1, kWidth / kHeads).batch(kBatch)},
      {"of another width", KVCacheOptions(kHeads, kWidth).batch(kBatch)},
      {"of another width of values", cache_options().value_head_dim(3)},
      {"with a window", cache_options().window(2)},
      {"of dtype float64", cache_options().options(torch::kDouble)},
      {"on another device", cache_options().options(torch::device(torch::kMeta))}};
  Wrongs wrongs;
  for (const auto& [what, other] : options) {
    wrongs.push_back({c10::str(name, ": ", what), [=, value = other](Args&, TransformerCache& cache) {
                        (cache.*caches).back() = KVCache(value);
                      }});
  }
  return wrongs;
}

/// Fills the last cache of self-attention.
Wrong full_cache() {
  return {"cache: full", [](Args&, TransformerCache& cache) {
            auto full = KVCache(cache_options().capacity(kCached + kTokens - 1));
            const auto rows = torch::randn({kBatch, kHeads, kCached, kWidth / kHeads});
            full.append(rows, rows);
            cache.self.back() = std::move(full);
          }};
}

/// Returns wrong states of the last mixer.
Wrongs wrong_states() {
  const auto change = [](const char* what, const std::function<void(RecurrentState & state)>& apply) {
    return Wrong{c10::str("state: ", what),
                 [=](Args&, TransformerCache& cache) { apply(cache.recurrent.back()); }};
  };
  return {change("of another batch",
                 [](auto& state) { state.memory = torch::cat({state.memory, state.memory}); }),
          change("of another size",
                 [](auto& state) { state.memory = torch::cat({state.memory, state.memory}, -1); }),
          change("of another rank", [](auto& state) { state.memory = state.memory.unsqueeze(0); }),
          change("of another dtype", [](auto& state) { state.memory = state.memory.to(torch::kHalf); }),
          change("on another device", [](auto& state) { state.memory = state.memory.to(torch::kMeta); })};
}

Wrongs wrong_recent_inputs() {
  const auto change = [](const char* what, const std::function<torch::Tensor(const torch::Tensor&)>& other) {
    return Wrong{c10::str("recent inputs: ", what), [=](Args&, TransformerCache& cache) {
                   auto& recent = cache.recurrent.back().recent;
                   recent = other(recent);
                 }};
  };
  return {change("none", [](auto&) { return torch::Tensor(); }),
          change("of another batch", [](auto& recent) { return torch::cat({recent, recent}); }),
          change("of another length", [](auto& recent) { return torch::cat({recent, recent}, 1); }),
          change("int64", [](auto& recent) { return recent.to(torch::kLong); }),
          change("on another device", [](auto& recent) { return recent.to(torch::kMeta); })};
}

torch::Tensor& input_of(Args& args) { return args.input; }
torch::Tensor& memory_of(Args& args) { return args.memory; }

/// Returns the changes that every stack with self-attention must refuse.
Wrongs wrong_self(bool has_cache) {
  auto wrongs = wrong_input("input", input_of, Args().input, has_cache) +
                wrong_masks("self", self_of, has_cache ? kCached + kTokens : kTokens) +
                wrong_lengths(has_cache);
  if (!has_cache) return wrongs;
  wrongs.push_back(full_cache());
  wrongs.push_back({"key_padding_mask with a cache", [](Args& args, TransformerCache&) {
                      args.self.key_padding_mask = torch::zeros({kBatch, kCached + kTokens}, torch::kBool);
                    }});
  return wrongs + wrong_caches("cache", &TransformerCache::self);
}

/// Returns the changes that every stack with attention to a memory must refuse.
Wrongs wrong_cross(bool has_cache) {
  const auto wrongs = wrong_masks("cross", cross_of, kSource);
  return has_cache ? wrongs + wrong_caches("memory", &TransformerCache::memory)
                   : wrongs + wrong_input("memory", memory_of, Args().memory);
}

// ---- the stacks

class Refusal : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

MultiHeadAttentionOptions causal_attention() {
  return MultiHeadAttentionOptions(kWidth, kHeads).is_causal(true).rotary(RotaryParams{});
}

TransformerLayerOptions layer_options() {
  auto options = TransformerLayerOptions(kWidth, kHeads).dim_feedforward(12).dropout(0.3);
  options.attention(causal_attention());
  return options;
}

TEST_F(Refusal, MultiHeadAttention) {
  nn::MultiHeadAttention attention(causal_attention().dropout(0.3));
  const Stack plain{attention.ptr(), [=](const Args& args, TransformerCache&) mutable {
                      return attention(args.input, {}, {}, args.self);
                    }};
  expect_all_refused(plain, wrong_self(false));
  const torch::NoGradGuard no_grad;
  Stack cached{attention.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                 auto params = args.self;
                 params.cache = &cache.self[0];
                 return attention(args.input, {}, {}, params);
               }};
  cached.cache.self.push_back(attention->make_cache(kBatch, kCapacity));
  attention(random({kBatch, kCached, kWidth}), {}, {}, {.cache = &cached.cache.self[0]});
  expect_all_refused(cached, wrong_self(true));
  Stack reading{attention.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                  auto params = args.cross;
                  params.cache = &cache.memory[0];
                  params.update_cache = false;
                  return attention(args.input, {}, {}, params);
                }};
  reading.cache.memory.push_back(attention->make_cache(kBatch, kCapacity));
  attention->append(reading.cache.memory[0], random({kBatch, kSource, kWidth}));
  expect_all_refused(reading, wrong_cross(true));
  Stack appending{attention.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                    attention->append(cache.self[0], args.input, {}, args.self.lengths);
                    return cache.self[0].entries().key.clone();
                  }};
  appending.cache = cached.cache.clone();
  expect_all_refused(appending, wrong_input("key", input_of, Args().input) + wrong_lengths(true) +
                                    wrong_caches("cache", &TransformerCache::self) + Wrongs{full_cache()});
}

TEST_F(Refusal, EncoderLayer) {
  nn::TransformerEncoderLayer layer(layer_options());
  const Stack plain{
      layer.ptr(), [=](const Args& args, TransformerCache&) mutable { return layer(args.input, args.self); }};
  expect_all_refused(plain, wrong_self(false));
  const torch::NoGradGuard no_grad;
  Stack cached{layer.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                 auto params = args.self;
                 params.cache = &cache.self[0];
                 return layer(args.input, params);
               }};
  cached.cache.self.push_back(layer->self_attn->make_cache(kBatch, kCapacity));
  layer(random({kBatch, kCached, kWidth}), {.cache = &cached.cache.self[0]});
  expect_all_refused(cached, wrong_self(true));
}

TEST_F(Refusal, DecoderLayer) {
  nn::TransformerDecoderLayer layer(layer_options());
  const Stack plain{layer.ptr(), [=](const Args& args, TransformerCache&) mutable {
                      return layer(args.input, args.memory, args.self, args.cross);
                    }};
  expect_all_refused(plain, wrong_self(false) + wrong_cross(false));
  const torch::NoGradGuard no_grad;
  Stack cached{layer.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                 auto self = args.self, cross = args.cross;
                 self.cache = &cache.self[0];
                 cross.cache = &cache.memory[0];
                 cross.update_cache = false;
                 return layer(args.input, {}, self, cross);
               }};
  cached.cache.self.push_back(layer->self_attn->make_cache(kBatch, kCapacity));
  cached.cache.memory.push_back(layer->multihead_attn->make_cache(kBatch, kCapacity));
  layer->multihead_attn->append(cached.cache.memory[0], random({kBatch, kSource, kWidth}));
  layer(random({kBatch, kCached, kWidth}), {}, {.cache = &cached.cache.self[0]},
        {.cache = &cached.cache.memory[0], .update_cache = false});
  expect_all_refused(cached, wrong_self(true) + wrong_cross(true));
}

/// Returns an encoder with the caches that it continues.
Stack encoder_with_cache(nn::TransformerEncoder encoder) {
  Stack stack{encoder.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                return encoder(args.input, args.self, &cache);
              }};
  stack.cache = encoder->make_cache(kBatch, kCapacity);
  encoder(random({kBatch, kCached, kWidth}), {}, &stack.cache);
  return stack;
}

TEST_F(Refusal, Encoder) {
  for (const bool checkpointing : {false, true}) {
    nn::TransformerEncoder encoder(
        TransformerStackOptions(layer_options(), 3).final_norm(true).checkpointing(checkpointing));
    const Stack plain{encoder.ptr(), [=](const Args& args, TransformerCache&) mutable {
                        return encoder(args.input, args.self);
                      }};
    expect_all_refused(plain, wrong_self(false));
    const torch::NoGradGuard no_grad;
    const Wrongs wrongs = {
        {"a cache of too few layers", [](Args&, TransformerCache& cache) { cache.self.pop_back(); }},
        {"a cache with a mixer's state",
         [](Args&, TransformerCache& cache) { cache.recurrent.emplace_back(); }}};
    expect_all_refused(encoder_with_cache(encoder), wrong_self(true) + wrongs);
  }
}

/// Layers with self-attention precede the mixer that refuses the call.
TEST_F(Refusal, EncoderWithMixers) {
  const auto delta = nn::as_mixer<nn::GatedDeltaNet>(nn::GatedDeltaNetOptions(kWidth, kHeads));
  const auto retention = nn::as_mixer<nn::Retention>(nn::RetentionOptions(kWidth, kHeads));
  nn::TransformerEncoder encoder(
      TransformerStackOptions(layer_options(), 4).mixers({nullptr, retention, nullptr, delta}));
  const torch::NoGradGuard no_grad;
  const Wrongs masks = {
      {"attn_mask",
       [](Args& args, TransformerCache&) { args.self.attn_mask = torch::zeros({kTokens, kTokens}); }},
      {"mask", [](Args& args, TransformerCache&) { args.self.mask = causal(); }},
      {"lengths", [](Args& args, TransformerCache&) { args.self.lengths = torch::tensor({1, 2}); }}};
  const Stack plain{encoder.ptr(), [=](const Args& args, TransformerCache&) mutable {
                      return encoder(args.input, args.self);
                    }};
  expect_all_refused(plain, wrong_self(false) + masks);
  const Wrongs counts = {
      {"a state too few", [](Args&, TransformerCache& cache) { cache.recurrent.pop_back(); }},
      {"a state too many", [](Args&, TransformerCache& cache) { cache.recurrent.emplace_back(); }}};
  expect_all_refused(encoder_with_cache(encoder),
                     wrong_self(true) + masks + counts + wrong_states() + wrong_recent_inputs());
}

TEST_F(Refusal, Mixers) {
  const auto expect = [](auto mixer, const Wrongs& wrongs) {
    const Stack plain{mixer.ptr(),
                      [=](const Args& args, TransformerCache&) mutable { return mixer(args.input); }};
    expect_all_refused(plain, wrong_input("input", input_of, Args().input, false));
    const torch::NoGradGuard no_grad;
    Stack stack{mixer.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                  return mixer(args.input, &cache.recurrent[0]);
                }};
    stack.cache.recurrent.emplace_back();
    mixer(random({kBatch, kCached, kWidth}), &stack.cache.recurrent[0]);
    expect_all_refused(stack, wrong_input("input", input_of, Args().input) + wrongs);
  };
  expect(nn::GatedDeltaNet(kWidth, kHeads), wrong_states() + wrong_recent_inputs());
  expect(nn::GatedLinearAttention(kWidth, kHeads), wrong_states());
  expect(nn::LinearAttention(kWidth, kHeads), wrong_states());
  expect(nn::Retention(kWidth, kHeads), wrong_states());
}

TEST_F(Refusal, Decoder) {
  for (const bool checkpointing : {false, true}) {
    nn::TransformerDecoder decoder(
        TransformerStackOptions(layer_options(), 3).final_norm(true).checkpointing(checkpointing));
    const Stack plain{decoder.ptr(), [=](const Args& args, TransformerCache&) mutable {
                        return decoder(args.input, args.memory, args.self, args.cross);
                      }};
    expect_all_refused(plain, wrong_self(false) + wrong_cross(false));
    const torch::NoGradGuard no_grad;
    Stack cached{decoder.ptr(), [=](const Args& args, TransformerCache& cache) mutable {
                   return decoder(args.input, {}, args.self, args.cross, &cache);
                 }};
    cached.cache = decoder->make_cache(random({kBatch, kSource, kWidth}), kCapacity);
    decoder(random({kBatch, kCached, kWidth}), {}, {}, {}, &cached.cache);
    const Wrongs wrongs = {
        {"a cache of too few layers", [](Args&, TransformerCache& cache) { cache.self.pop_back(); }},
        {"a memory of too few layers", [](Args&, TransformerCache& cache) { cache.memory.pop_back(); }},
        {"a mask of the memory in the cache", [](Args&, TransformerCache& cache) {
           cache.memory_key_padding_mask = torch::zeros({kBatch, kSource + 1}, torch::kBool);
         }}};
    expect_all_refused(cached, wrong_self(true) + wrong_cross(true) + wrongs);
  }
}

TEST_F(Refusal, TheCacheOfADecoderIsNotMadeWithAWrongMask) {
  nn::TransformerDecoder decoder(TransformerStackOptions(layer_options(), 2));
  const torch::NoGradGuard no_grad;
  const auto memory = random({kBatch, kSource, kWidth});
  for (const auto& [what, mask] : wrong_variants(torch::zeros({kBatch, kSource}))) {
    EXPECT_THROW(decoder->make_cache(memory, kCapacity, mask), Error) << what;
  }
  EXPECT_EQ(error_of([&] { decoder->make_cache(memory, 9, torch::zeros({kBatch, 4}, torch::kBool)); }),
            "attend::nn::TransformerDecoder: layers.0.multihead_attn: memory_key_padding_mask: expected a "
            "boolean or floating tensor [2, 5], got bool [2, 4]");
}

TEST_F(Refusal, Transformer) {
  nn::Transformer transformer(TransformerOptions(kWidth, kHeads)
                                  .dim_feedforward(12)
                                  .dropout(0.3)
                                  .num_encoder_layers(2)
                                  .num_decoder_layers(2));
  const Stack stack{transformer.ptr(), [=](const Args& args, TransformerCache&) mutable {
                      return transformer(args.memory, args.input, args.masks);
                    }};
  const auto mask = [](const std::string& name, torch::Tensor TransformerParams::*field,
                       at::IntArrayRef sizes) {
    return wrong_tensor(name, [=](Args& args) -> auto& { return args.masks.*field; }, torch::zeros(sizes));
  };
  expect_all_refused(
      stack,
      wrong_input("tgt", input_of, Args().input) + wrong_input("src", memory_of, Args().memory) +
          mask("src_mask", &TransformerParams::src_mask, {kSource, kSource}) +
          mask("tgt_mask", &TransformerParams::tgt_mask, {kTokens, kTokens}) +
          mask("memory_mask", &TransformerParams::memory_mask, {kTokens, kSource}) +
          mask("src_key_padding_mask", &TransformerParams::src_key_padding_mask, {kBatch, kSource}) +
          mask("tgt_key_padding_mask", &TransformerParams::tgt_key_padding_mask, {kBatch, kTokens}) +
          mask("memory_key_padding_mask", &TransformerParams::memory_key_padding_mask, {kBatch, kSource}));
}

/// The calls would lose a gradient in a later layer.
TEST_F(Refusal, GradientsWithACache) {
  nn::TransformerEncoder encoder(TransformerStackOptions(layer_options(), 2));
  auto cache = encoder->make_cache(kBatch, kCapacity);
  for (auto& parameter : encoder->parameters()) parameter.requires_grad_(false);
  encoder->layers->ptr<nn::TransformerEncoderLayerImpl>(0)->linear2->weight.requires_grad_();
  EXPECT_THROW(encoder(random({kBatch, kTokens, kWidth}), {}, &cache), Error);
  EXPECT_EQ(cache.length(), 0);
}

}  // namespace
}  // namespace attend::testing
