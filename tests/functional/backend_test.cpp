// Tests which backend serves a call and why, and compares ATen's attention and the reference in chunks with
// the documented behaviour.
#include <attend/attention.h>
#include <attend/linear_attention.h>
#include <torch/csrc/autograd/forward_grad.h>

#include "naive_attention.h"
#include "support.h"
#include "vmap.h"

namespace attend::testing {
namespace {

struct Inputs {
  torch::Tensor query, key, value;

  static Inputs random(int64_t heads, int64_t kv_heads, int64_t queries, int64_t keys, int64_t d,
                       torch::ScalarType dtype = torch::kDouble) {
    return {torch::randn({2, heads, queries, d}, dtype), torch::randn({2, kv_heads, keys, d}, dtype),
            torch::randn({2, kv_heads, keys, d}, dtype)};
  }

  Inputs leaves() const {
    const auto leaf = [](const torch::Tensor& tensor) { return tensor.detach().clone().requires_grad_(); };
    return {leaf(query), leaf(key), leaf(value)};
  }

  torch::Tensor attend(AttentionParams params, Backend backend) const {
    params.backend = backend;
    return attention(query, key, value, params);
  }

  std::vector<torch::Tensor> all() const { return {query, key, value}; }
};

class Backends : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }

  /// Returns the reason why `sdpa` is refused; empty if it is not refused.
  static std::string refusal_of_sdpa(const Inputs& in, AttentionParams params) {
    params.backend = Backend::sdpa;
    const auto explanation = explain(in.query, in.key, in.value, params);
    if (explanation.chosen == Backend::sdpa) return "";
    EXPECT_EQ(explanation.chosen, Backend::reference);
    EXPECT_EQ(explanation.refused.size(), 1U);
    EXPECT_EQ(explanation.refused[0].backend, Backend::sdpa);
    const auto reason = explanation.refused[0].reason;
    EXPECT_EQ(
        error_of([&] { attention(in.query, in.key, in.value, params); }),
        "attend::attention: backend: expected a backend that can serve the call, got sdpa, which cannot: " +
            reason);
    return reason;
  }
};

// ---- the choice

TEST_F(Backends, AutomaticTakesTheFirstThatServes) {
  const auto in = Inputs::random(2, 2, 3, 4, 5);
  const auto chosen = explain(in.query, in.key, in.value);
  EXPECT_EQ(chosen.chosen, Backend::fused);
  EXPECT_TRUE(chosen.refused.empty());
  EXPECT_EQ(explain(in.query, in.key, in.value, {.backend = Backend::reference}).chosen, Backend::reference);
  EXPECT_EQ(explain(in.query, in.key, in.value, {.backend = Backend::sdpa}).chosen, Backend::sdpa);
}

TEST_F(Backends, EveryRefusalIsExplained) {
  const auto in = Inputs::random(2, 2, 3, 4, 5);
  const auto on_meta = [](const torch::Tensor& tensor) { return tensor.to(torch::kMeta); };
  const auto explanation = explain(on_meta(in.query), on_meta(in.key), on_meta(in.value));
  EXPECT_EQ(explanation.chosen, Backend::reference);
  ASSERT_EQ(explanation.refused.size(), 2U);
  EXPECT_EQ(explanation.refused[0].backend, Backend::fused);
  EXPECT_EQ(explanation.refused[0].reason, "the tensors are not on the CPU");
  EXPECT_EQ(explanation.refused[1].backend, Backend::sdpa);
  EXPECT_EQ(explanation.refused[1].reason, "the tensors are neither on the CPU nor on a CUDA device");
  EXPECT_EQ(
      error_of([&] {
        attention(on_meta(in.query), on_meta(in.key), on_meta(in.value), {.backend = Backend::fused});
      }),
      "attend::attention: backend: expected a backend that can serve the call, got fused, which cannot: the "
      "tensors "
      "are not on the CPU");
}

TEST_F(Backends, SdpaRefusesCallsThatItCannotExpress) {
  const auto in = Inputs::random(2, 1, 3, 4, 8);
  const auto values = torch::randn({3, 4}, torch::kDouble);
  EXPECT_EQ(refusal_of_sdpa(in, {}), "");
  EXPECT_EQ(refusal_of_sdpa(in, {.mask = causal() & key_lengths(torch::tensor({4, 0}))}), "");
  EXPECT_EQ(refusal_of_sdpa(in, {.score_mod = bias(values)}), "");
  EXPECT_EQ(refusal_of_sdpa(in, {.weighting = Weighting::sigmoid}), "the weighting is not softmax");
  EXPECT_EQ(refusal_of_sdpa(in, {.dropout_p = 0.1}), "ATen's dropout drops other weights");
  EXPECT_EQ(refusal_of_sdpa(in, {.sinks = torch::zeros({2}, torch::kDouble)}), "there are attention sinks");
  const std::string not_a_bias = "the score modification is not a bias of the query's dtype";
  EXPECT_EQ(refusal_of_sdpa(in, {.score_mod = alibi(torch::ones({2}, torch::kDouble))}), not_a_bias);
  EXPECT_EQ(refusal_of_sdpa(in, {.score_mod = bias(values).then(bias(values))}), not_a_bias);
  EXPECT_EQ(refusal_of_sdpa(in, {.score_mod = bias(values.to(torch::kFloat))}), not_a_bias);
  const std::string no_kernel = "ATen has no fused kernel for the call and would build all scores";
  EXPECT_EQ(refusal_of_sdpa(in, {.score_mod = bias(values.clone().requires_grad_())}), no_kernel);
  EXPECT_EQ(refusal_of_sdpa({in.query, in.key, in.value.slice(3, 0, 5)}, {}), no_kernel);
  EXPECT_EQ(refusal_of_sdpa(Inputs::random(2, 2, 0, 4, 8), {}), no_kernel);
  EXPECT_EQ(
      error_of([&] { attention_with_lse(in.query, in.key, in.value, {.backend = Backend::sdpa}); }),
      "attend::attention_with_lse: backend: expected a backend that can serve the call, got sdpa, which "
      "cannot: the logsumexp is requested");
}

TEST_F(Backends, TheReferenceServesForwardMode) {
  const auto in = Inputs::random(2, 2, 3, 4, 5);
  const auto level = static_cast<int64_t>(torch::autograd::ForwardADLevel::get_next_idx());
  const auto dual = at::_make_dual(in.query, torch::ones_like(in.query), level);
  const auto explanation = explain(dual, in.key, in.value);
  torch::autograd::ForwardADLevel::release_idx(static_cast<uint64_t>(level));
  EXPECT_EQ(explanation.chosen, Backend::reference);
  ASSERT_EQ(explanation.refused.size(), 2U);
  for (const auto& refused : explanation.refused) {
    EXPECT_EQ(refused.reason, "a tensor carries a forward-mode tangent");
  }
}

TEST_F(Backends, TheReferenceServesBatchedMasksAndSinks) {
  const auto in = Inputs::random(2, 2, 5, 7, 8);
  const auto refusals = [&](const AttentionParams& params) {
    std::vector<std::string> reasons;
    for (const auto& refused : explain(in.query, in.key, in.value, params).refused) {
      reasons.push_back(refused.reason);
    }
    return reasons;
  };
  const std::string not_plain = "a tensor is of a subclass or under a functional transform";
  const auto allowed = torch::rand({3, 5, 7}) < 0.5, sinks = torch::randn({3, 2}, torch::kDouble);
  const auto with_mask = [&](const torch::Tensor& mask) {
    return attention(in.query, in.key, in.value, {.mask = causal() & dense(mask)});
  };
  const auto with_sinks = [&](const torch::Tensor& sink) {
    return attention(in.query, in.key, in.value, {.sinks = sink});
  };
  const auto masked = vmap(
      [&](const torch::Tensor& mask) {
        EXPECT_EQ(refusals({.mask = causal() & dense(mask)}), (std::vector{not_plain, not_plain}));
        EXPECT_NE(error_of([&] {
                    attention(in.query, in.key, in.value, {.mask = mask, .backend = Backend::fused});
                  }).find(not_plain),
                  std::string::npos);
        return with_mask(mask);
      },
      allowed);
  const auto sunk = vmap(
      [&](const torch::Tensor& sink) {
        EXPECT_EQ(refusals({.sinks = sink}), (std::vector{not_plain, not_plain}));
        return with_sinks(sink);
      },
      sinks);
  for (int64_t n = 0; n < 3; ++n) {
    expect_close(masked[n], with_mask(allowed[n]), 1e-12);
    expect_close(sunk[n], with_sinks(sinks[n]), 1e-12);
  }
}

TEST_F(Backends, LinearAttentionIsExplainedToo) {
  const auto x = torch::randn({1, 2, 5, 4});
  const auto on_cpu = explain_linear_attention(x, x, x);
  EXPECT_EQ(on_cpu.chosen, Backend::fused);
  EXPECT_TRUE(on_cpu.refused.empty());
  const auto meta = x.to(torch::kMeta);
  const auto on_meta = explain_linear_attention(meta, meta, meta);
  EXPECT_EQ(on_meta.chosen, Backend::reference);
  const std::string only_softmax = "at::scaled_dot_product_attention computes softmax attention only";
  ASSERT_EQ(on_meta.refused.size(), 2U);
  EXPECT_EQ(on_meta.refused[0].backend, Backend::fused);
  EXPECT_EQ(on_meta.refused[0].reason, "the tensors are not on the CPU");
  EXPECT_EQ(on_meta.refused[1].backend, Backend::sdpa);
  EXPECT_EQ(on_meta.refused[1].reason, only_softmax);
  const auto requested = explain_linear_attention(x, x, x, {.backend = Backend::sdpa});
  EXPECT_EQ(requested.chosen, Backend::reference);
  ASSERT_EQ(requested.refused.size(), 1U);
  EXPECT_EQ(requested.refused[0].reason, only_softmax);
  EXPECT_EQ(explain_linear_attention(x, x, x, {.backend = Backend::reference}).chosen, Backend::reference);
}

TEST_F(Backends, TheReferenceServesBatchedTensorsOfLinearAttention) {
  const auto x = torch::rand({1, 2, 5, 4}, torch::kDouble);
  const auto decays = torch::rand({3, 2}, torch::kDouble).log();
  const auto projections = torch::randn({3, 6, 4}, torch::kDouble);
  const auto decayed = [&](const torch::Tensor& decay) {
    return linear_attention(x, x, x, {.is_causal = true, .log_decay = decay}).output;
  };
  const auto projected = [&](const torch::Tensor& projection) {
    return linear_attention(x, x, x, {.feature_map = FeatureMap::random_features, .projection = projection})
        .output;
  };
  const auto with_decays = vmap(decayed, decays), with_projections = vmap(projected, projections);
  for (int64_t n = 0; n < 3; ++n) {
    expect_close(with_decays[n], decayed(decays[n]), 1e-12);
    expect_close(with_projections[n], projected(projections[n]), 1e-12);
  }
}

TEST_F(Backends, AStepOfLinearAttentionObeysTheBackend) {
  const auto x = torch::rand({1, 2, 1, 4}, torch::kDouble);
  const auto start = torch::rand({1, 2, 4, 5}, torch::kDouble);
  const auto run = [&](Backend backend) {
    auto state = start.clone();
    const auto output = linear_attention_step(x, x, x, state, {.backend = backend});
    return torch::cat({output.flatten(), state.flatten()});
  };
  expect_close(run(Backend::reference), run(Backend::fused), 1e-12);
  EXPECT_EQ(
      error_of([&] { run(Backend::sdpa); }),
      "attend::linear_attention_step: backend: expected a backend that can serve the call, got sdpa, which "
      "cannot: at::scaled_dot_product_attention computes softmax attention only");
}

TEST_F(Backends, SlowDropoutIsNoted) {
  const auto in = Inputs::random(2, 2, 3, 4, 5);
  EXPECT_TRUE(explain(in.query, in.key, in.value, {.dropout_p = 0.1}).notes.empty());
  const auto meta = [](const torch::Tensor& tensor) { return tensor.to(torch::kMeta); };
  EXPECT_EQ(
      explain(meta(in.query), meta(in.key), meta(in.value), {.dropout_p = 0.1}).notes,
      (std::vector<std::string>{"the dropout factors of all scores are computed by operations on integers"}));
}

// ---- what every backend does

constexpr std::array kEveryBackend = {Backend::fused, Backend::sdpa, Backend::reference};

/// Returns the gradients of all inputs; calls `between` between the forward and the backward pass.
std::vector<torch::Tensor> gradients(
    const Inputs& in, const AttentionParams& params, Backend backend,
    const std::function<void()>& between = [] {}) {
  const auto leaves = in.leaves();
  const auto output = leaves.attend(params, backend);
  between();
  return torch::autograd::grad({output.sin().sum()}, leaves.all());
}

TEST_F(Backends, TheTensorsOfAMaskMayChangeBeforeTheGradients) {
  const auto in = Inputs::random(2, 2, 5, 7, 8);
  struct Case {
    std::string name;
    torch::Tensor numbers;
    std::function<Mask(const torch::Tensor& numbers)> mask;
  };
  const std::vector<Case> cases = {
      {"key_lengths", torch::tensor({4, 7}), [](const auto& numbers) { return key_lengths(numbers); }},
      {"prefix", torch::tensor({4, 7}), [](const auto& numbers) { return causal() | prefix(numbers); }},
      {"documents", torch::tensor({0, 0, 1, 1, 1, 2, 2}), [](const auto& n) { return documents(n); }}};
  for (const auto& [name, numbers, mask] : cases) {
    for (const auto backend : kEveryBackend) {
      const auto expected = gradients(in, {.mask = mask(numbers.clone())}, backend);
      const auto own = numbers.clone();
      // Overwrites the caller's tensor with lengths far beyond the keys, or with a different document for
      // each key.
      const auto change = [&] { own.copy_(torch::arange(own.numel()) * 100000); };
      const auto got = gradients(in, {.mask = mask(own)}, backend, change);
      for (size_t n = 0; n < 3; ++n) {
        EXPECT_TRUE(same_bits(got[n], expected[n])) << name << ", backend " << static_cast<int>(backend);
      }
    }
  }
}

TEST_F(Backends, AChangeOfADenseMaskIsDetected) {
  const auto in = Inputs::random(2, 2, 5, 7, 8);
  for (const auto backend : {Backend::fused, Backend::sdpa}) {
    const auto allowed = torch::rand({5, 7}) < 0.5;
    const auto error = error_of([&] {
      gradients(in, {.mask = ~(causal() & dense(allowed))}, backend, [&] { allowed.logical_not_(); });
    });
    EXPECT_NE(error.find("modified by an inplace operation"), std::string::npos) << error;
  }
}

/// Returns softmax(Q K^T / sqrt(D) + bias) V.
torch::Tensor formula(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                      const torch::Tensor& added) {
  auto scores = torch::matmul(query, key.transpose(-2, -1)) / std::sqrt(static_cast<double>(query.size(-1)));
  if (added.defined()) scores = scores + added;
  return torch::matmul(torch::softmax(scores, -1), value);
}

/// Returns the gradient of a function of the output, and with create_graph also the gradient of a function of
/// that gradient.
std::vector<torch::Tensor> gradients_of(const torch::Tensor& output, const torch::Tensor& input,
                                        bool create_graph) {
  const auto loss = output.sin().sum();
  const auto first = torch::autograd::grad({loss}, {input}, {}, /*retain_graph=*/true, create_graph)[0];
  if (!create_graph) return {first};
  return {first, torch::autograd::grad({first.cos().sum()}, {input}, {}, /*retain_graph=*/true)[0]};
}

TEST_F(Backends, OneTensorInSeveralPlacesGetsEachGradientOnce) {
  const auto x = torch::randn({1, 2, 6, 6}, torch::dtype(torch::kDouble).requires_grad(true));
  const auto y = x * 1.5;
  struct Case {
    std::string name;
    torch::Tensor query, key, value, added;
  };
  const std::vector<Case> cases = {{"self-attention", x, x, x, {}},
                                   {"of each other", y, 2 * y, x, {}},
                                   {"a bias of the query", y, x, x, y[0][0]}};
  for (const auto& [name, query, key, value, added] : cases) {
    const auto score_mod = added.defined() ? bias(added) : ScoreMod();
    for (const bool create_graph : {false, true}) {
      const auto expected = gradients_of(formula(query, key, value, added), x, create_graph);
      for (const auto backend : kEveryBackend) {
        // ATen's attention does not serve a bias with a gradient.
        if (added.defined() && backend == Backend::sdpa) continue;
        const auto got = gradients_of(
            attention(query, key, value, {.score_mod = score_mod, .backend = backend}), x, create_graph);
        for (size_t n = 0; n < expected.size(); ++n) {
          expect_close(got[n], expected[n], 1e-11, c10::str(name, ", backend ", static_cast<int>(backend)));
        }
      }
    }
  }
}

TEST_F(Backends, ABiasInSeveralPlacesInChunks) {
  // The scores are too many for one chunk of the reference.
  const auto values = torch::randn({6000}, torch::requires_grad());
  const auto query = torch::randn({1, 1, 6000, 2}), key = torch::randn({1, 1, 6000, 2});
  const auto gradient_with = [&](Backend backend) {
    const auto twice = bias(values).then(bias(values));
    const auto output = attention(query, key, key, {.score_mod = twice, .backend = backend});
    return torch::autograd::grad({output.square().sum()}, {values})[0];
  };
  expect_close(gradient_with(Backend::reference), gradient_with(Backend::fused), 1e-3);
}

TEST_F(Backends, ALazilyNegatedBias) {
  const auto in = Inputs::random(2, 2, 5, 7, 8);
  const auto negated = [](const torch::Tensor& tensor) { return at::_neg_view(tensor.neg()); };
  const auto values = torch::randn({5, 7}, torch::kDouble), slopes = torch::rand({2}, torch::kDouble);
  for (const auto backend : {Backend::fused, Backend::reference}) {
    expect_close(in.attend({.score_mod = bias(negated(values))}, backend),
                 in.attend({.score_mod = bias(values)}, backend), 0);
    expect_close(in.attend({.score_mod = alibi(negated(slopes))}, backend),
                 in.attend({.score_mod = alibi(slopes)}, backend), 0);
  }
}

TEST_F(Backends, LazyNegationsAndZeroTensors) {
  const auto in = Inputs::random(2, 2, 5, 7, 8);
  const auto negated = [](const torch::Tensor& tensor) { return at::_neg_view(tensor.neg()); };
  const auto zeros = [](const torch::Tensor& tensor) {
    return at::_efficientzerotensor(tensor.sizes(), tensor.options());
  };
  const auto gradients_for = [&](const Inputs& inputs, const torch::Tensor& grad, Backend backend) {
    const auto output = inputs.attend({.mask = causal()}, backend);
    return torch::autograd::grad({output}, inputs.all(), {grad});
  };
  const auto grad = torch::randn({2, 2, 5, 8}, torch::kDouble);
  for (const auto backend : kEveryBackend) {
    SCOPED_TRACE(static_cast<int>(backend));
    const auto leaves = in.leaves();
    const auto output = in.attend({}, backend);
    expect_close(Inputs{negated(in.query), negated(in.key), negated(in.value)}.attend({}, backend), output,
                 0);
    expect_close(Inputs{in.query, in.key, zeros(in.value)}.attend({}, backend), torch::zeros_like(output), 0);
    expect_close(Inputs{zeros(in.query), in.key, in.value}.attend({}, backend),
                 Inputs{torch::zeros_like(in.query), in.key, in.value}.attend({}, backend), 0);
    const auto hides_all = dense(zeros(torch::ones({5, 7}, torch::kBool)));
    expect_close(in.attend({.mask = hides_all}, backend), torch::zeros_like(output), 0);
    const auto expected = gradients_for(leaves, grad, backend);
    const auto got = gradients_for(leaves, negated(grad), backend);
    const auto of_zeros = gradients_for(leaves, zeros(grad), backend);
    for (size_t n = 0; n < 3; ++n) {
      expect_close(got[n], expected[n], 0);
      EXPECT_EQ(of_zeros[n].abs().max().item<double>(), 0);
    }
  }
}

// ---- ATen's attention

struct MaskCase {
  std::string name;
  Mask mask;
  std::function<bool(int64_t b, int64_t i, int64_t j)> allowed;
};

/// Masks for five queries and seven keys; some rows are fully masked.
std::vector<MaskCase> mask_cases() {
  const auto dense_mask = torch::rand({2, 1, 5, 7}) < 0.5;
  dense_mask[0][0][2].fill_(false);
  const auto entries = dense_mask.accessor<bool, 4>();
  return {
      {"none", {}, [](auto...) { return true; }},
      {"causal", causal(), [](auto, auto i, auto j) { return j <= i + 2; }},
      {"top left", causal(Corner::top_left), [](auto, auto i, auto j) { return j <= i; }},
      {"window", window(1, 0), [](auto, auto i, auto j) { return j >= i + 1 && j <= i + 2; }},
      {"lengths", key_lengths(torch::tensor({6, 0})), [](auto b, auto, auto j) { return b == 0 && j < 6; }},
      {"dense", dense_mask, [=](auto b, auto i, auto j) { return entries[b][0][i][j]; }},
      {"column", dense_mask.slice(3, 0, 1), [=](auto b, auto i, auto) { return entries[b][0][i][0]; }},
      {"not causal", ~causal(), [](auto, auto i, auto j) { return j > i + 2; }},
  };
}

TEST_F(Backends, SdpaAgreesWithTheFormula) {
  for (const int64_t kv_heads : {1, 2, 4}) {
    const auto in = Inputs::random(4, kv_heads, 5, 7, 8);
    for (const auto& [name, mask, allowed] : mask_cases()) {
      for (const bool with_bias : {false, true}) {
        const auto values = torch::randn({1, 4, 5, 7}, torch::kDouble);
        values[0][0][1].fill_(-INFINITY);
        const auto added = values.accessor<double, 4>();
        const NaiveAttention naive{
            .scale = 0.3,
            .allowed = [&](auto b, auto, auto i, auto j) { return allowed(b, i, j); },
            .score_mod = [&](double score, auto, auto h, auto i,
                             auto j) { return with_bias ? score + added[0][h][i][j] : score; }};
        const AttentionParams params{
            .mask = mask, .score_mod = with_bias ? bias(values) : ScoreMod(), .scale = 0.3};
        expect_close(in.attend(params, Backend::sdpa), naive(in.query, in.key, in.value).output, 1e-12,
                     c10::str(name, " bias ", with_bias, " kv heads ", kv_heads));
      }
    }
  }
}

TEST_F(Backends, SdpaGradientsAgreeWithCentralDifferences) {
  for (const auto& [name, mask, allowed] : mask_cases()) {
    SCOPED_TRACE(name);
    const auto in = Inputs::random(2, 1, 5, 7, 3).leaves();
    const auto direction = torch::randn({2, 2, 5, 3}, torch::kDouble);
    expect_gradients([&] { return (in.attend({.mask = mask}, Backend::sdpa) * direction).sum(); }, in.all());
  }
}

TEST_F(Backends, SdpaGivesTheSameBitsWhetherHeadsAreRepeatedOrShared) {
  for (const auto dtype : {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    const auto in = Inputs::random(4, 2, 65, 97, 16, dtype);
    const Inputs repeated{in.query, in.key.repeat_interleave(2, 1), in.value.repeat_interleave(2, 1)};
    EXPECT_TRUE(same_bits(in.attend({.mask = causal()}, Backend::sdpa),
                          repeated.attend({.mask = causal()}, Backend::sdpa)));
    EXPECT_TRUE(same_bits(in.attend({.mask = causal()}, Backend::sdpa),
                          in.leaves().attend({.mask = causal()}, Backend::sdpa)));
  }
}

TEST_F(Backends, SdpaHasSecondDerivatives) {
  const auto in = Inputs::random(2, 1, 3, 4, 3);
  const auto second = [&](Backend backend) {
    const auto leaves = in.leaves();
    const auto first = torch::autograd::grad({leaves.attend({.mask = causal()}, backend).sin().sum()},
                                             leaves.all(), {}, /*retain_graph=*/true, /*create_graph=*/true);
    return torch::autograd::grad({first[0].square().sum() + first[1].square().sum() + first[2].sum()},
                                 leaves.all());
  };
  const auto got = second(Backend::sdpa), expected = second(Backend::reference);
  for (size_t n = 0; n < 3; ++n) expect_close(got[n], expected[n], 1e-12);
}

TEST_F(Backends, SdpaNeverReadsPastTheKeyLengths) {
  const auto in = Inputs::random(2, 2, 3, 6, 8, torch::kFloat).leaves();
  const auto clean = in.attend({.mask = key_lengths(torch::tensor({4, 0}))}, Backend::sdpa);
  {
    const torch::NoGradGuard no_grad;
    in.key.slice(2, 4).fill_(NAN);
    in.value.slice(2, 4).fill_(INFINITY);
    in.value[1].fill_(NAN);
  }
  const auto output = in.attend({.mask = key_lengths(torch::tensor({4, 0}))}, Backend::sdpa);
  expect_close(output, clean, 0);
  output.sum().backward();
  for (const auto& leaf : in.all()) EXPECT_TRUE(leaf.grad().isfinite().all().item<bool>());
}

TEST_F(Backends, SdpaDetectsAChangeInPlace) {
  const auto in = Inputs::random(1, 1, 3, 4, 8);
  const auto leaf = in.query.clone().requires_grad_();
  const auto query = leaf * 2;
  const auto output = attention(query, in.key, in.value, {.backend = Backend::sdpa});
  query.add_(1);
  EXPECT_NE(error_of([&] { output.sum().backward(); }).find("modified by an inplace operation"),
            std::string::npos);
}

// ---- the reference in chunks

/// Returns inputs with 33.6 million scores, slightly more than the 2^25 of a chunk.
Inputs many_scores() {
  const auto make = [] { return torch::randn({1, 2, 4096, 4}); };
  return Inputs{make(), torch::randn({1, 1, 4099, 4}), torch::randn({1, 1, 4099, 4})}.leaves();
}

TEST_F(Backends, ChunksOfTheReferenceAgreeWithTheFusedKernel) {
  const auto in = many_scores();
  const auto mask =
      causal() & key_lengths(torch::tensor({4000})) & documents(torch::arange(4099).floor_divide(1500));
  const auto slopes = torch::tensor({0.01F, 0.1F}).requires_grad_();
  const auto values = torch::randn({1, 1, 4096, 1}).requires_grad_();
  const auto inputs = [&] {
    auto all = in.all();
    all.push_back(slopes);
    all.push_back(values);
    return all;
  }();
  const auto run = [&](Backend backend) {
    torch::manual_seed(3);  // for dropout
    const auto [output, logsumexp] =
        attention_with_lse(in.query, in.key, in.value,
                           {.mask = mask & dense((torch::arange(4096) % 7 != 0).view({1, 1, 4096, 1})),
                            .score_mod = alibi(slopes).then(bias(values)),
                            .dropout_p = 0.2,
                            .backend = backend});
    const auto seen = logsumexp.masked_fill(logsumexp.isinf(), 0);
    auto results = torch::autograd::grad({output.square().sum() + seen.sum()}, inputs);
    results.push_back(output);
    results.push_back(logsumexp);
    return results;
  };
  const auto got = run(Backend::reference), expected = run(Backend::fused);
  for (size_t n = 0; n < got.size(); ++n) {
    // Both results are sums of thousands of terms of order 1 in float32.
    const double largest = expected[n].masked_fill(expected[n].isinf(), 0).abs().max().item<double>();
    expect_close(got[n], expected[n], 64 * unit_roundoff(torch::kFloat) * std::max(1.0, largest),
                 c10::str("result ", n));
  }
}

TEST_F(Backends, ChunksOfTheReferenceSumHalfGradientsInFloat32) {
  // Scores are equal, so that the gradient of every value is the sum of the output's gradients divided by Lk.
  // The sums of the two chunks cancel to a hundredth, so they must not be rounded to bfloat16.
  const int64_t length = 8209;
  const auto inputs = [=] { return torch::zeros({1, 1, length, 1}, torch::kBFloat16); };
  const auto value = inputs().requires_grad_();
  const auto grad = torch::ones_like(value);
  grad.slice(2, length / 2).fill_(-127.0 / 128);
  const auto output = attention(inputs(), inputs(), value, {.backend = Backend::reference});
  const auto got = torch::autograd::grad({output}, {value}, {grad})[0];
  const double exact = grad.to(torch::kDouble).sum().item<double>() / static_cast<double>(length);
  // One rounding to bfloat16, and sums of thousands of terms of 1 / Lk in float32.
  const double tolerance = unit_roundoff(torch::kBFloat16) * exact + 64 * unit_roundoff(torch::kFloat);
  expect_close(got, torch::full_like(got, exact, torch::kDouble), tolerance);
}

}  // namespace
}  // namespace attend::testing
