// Tests that every public function keeps the dtypes of its tensors under autocast: results and gradients have
// the same bits with and without autocast, also for gradients of gradients.
#include <attend/additive_attention.h>
#include <attend/attention.h>
#include <attend/linear_attention.h>

#include "support.h"

namespace attend::testing {
namespace {

struct Inputs {
  torch::Tensor query, key, value;
};

Inputs leaves() {
  torch::manual_seed(0);
  const auto leaf = [](std::vector<int64_t> sizes) { return torch::randn(sizes).requires_grad_(); };
  return {leaf({2, 2, 9, 8}), leaf({2, 1, 9, 8}), leaf({2, 1, 9, 8})};
}

struct Function {
  std::string name;
  std::function<torch::Tensor(const Inputs& in)> call;
};

/// Functions with backward passes of this library.
std::vector<Function> differentiable_functions() {
  std::vector<Function> all;
  for (const auto backend : {Backend::fused, Backend::sdpa}) {
    all.push_back({c10::str("attention, backend ", static_cast<int>(backend)), [=](const Inputs& in) {
                     return attention(in.query, in.key, in.value, {.mask = causal(), .backend = backend});
                   }});
  }
  all.push_back({"attention_with_lse", [](const Inputs& in) {
                   const auto [output, logsumexp] = attention_with_lse(in.query, in.key, in.value);
                   return output * logsumexp.unsqueeze(-1);
                 }});
  for (const auto map : {FeatureMap::elu_plus_one, FeatureMap::relu, FeatureMap::identity}) {
    for (const bool is_causal : {true, false}) {
      for (const bool is_delta : {false, true}) {
        all.push_back({c10::str("linear_attention, map ", static_cast<int>(map), is_causal ? ", causal" : "",
                                is_delta ? ", delta rule" : ""),
                       [=](const Inputs& in) {
                         const auto [output, state] = linear_attention(
                             in.query, in.key, in.value,
                             {.feature_map = map,
                              .normalize = map != FeatureMap::identity,
                              .is_causal = is_causal,
                              .log_decay = in.query.mean(-1).sigmoid().log(),
                              .beta = is_delta ? in.query.mean(-1).sigmoid() * 0.1 : torch::Tensor()});
                         return output.square().sum() + state.square().sum();
                       }});
      }
    }
  }
  return all;
}

/// Functions whose gradients are computed by ATen, and functions without gradients.
std::vector<Function> other_functions() {
  const auto w = torch::randn({8});
  const auto projection = orthogonal_projection(16, 8);
  return {{"attention, reference",
           [](const Inputs& in) {
             return attention(in.query, in.key, in.value, {.backend = Backend::reference});
           }},
          {"attention_weights", [](const Inputs& in) { return attention_weights(in.query, in.key); }},
          {"attention_weights with sinks",
           [](const Inputs& in) { return attention_weights(in.query, in.key, {.sinks = torch::ones({2})}); }},
          {"additive_attention",
           [=](const Inputs& in) { return additive_attention(in.query, in.key, in.value, w); }},
          {"additive_attention_weights",
           [=](const Inputs& in) { return additive_attention_weights(in.query, in.key, w); }},
          {"linear_attention, reference",
           [](const Inputs& in) {
             return linear_attention(in.query, in.key, in.value,
                                     {.is_causal = true, .backend = Backend::reference})
                 .output;
           }},
          {"linear_attention, reference, not causal",
           [](const Inputs& in) {
             return linear_attention(in.query, in.key, in.value, {.backend = Backend::reference}).output;
           }},
          {"linear_attention, random features",
           [=](const Inputs& in) {
             return linear_attention(in.query, in.key, in.value,
                                     {.feature_map = FeatureMap::random_features, .projection = projection})
                 .output;
           }},
          {"linear_attention_step",
           [](const Inputs& in) {
             auto state = torch::ones({2, 2, 8, 9});
             const auto token = [](const torch::Tensor& x) { return x.detach().slice(2, 0, 1); };
             const auto output =
                 linear_attention_step(token(in.query), token(in.key), token(in.value), state);
             return torch::cat({output.flatten(), state.flatten()});
           }},
          {"linear_attention_step, random features",
           [=](const Inputs& in) {
             auto state = torch::ones({2, 2, 16, 9});
             const auto token = [](const torch::Tensor& x) { return x.detach().slice(2, 0, 1); };
             const auto output = linear_attention_step(
                 token(in.query), token(in.key), token(in.value), state,
                 {.feature_map = FeatureMap::random_features, .projection = projection});
             return torch::cat({output.flatten(), state.flatten()});
           }},
          {"orthogonal_projection", [](const Inputs&) {
             torch::manual_seed(1);
             return orthogonal_projection(20, 8);
           }}};
}

/// Returns the result of a function; with `with_gradients` also its gradients, computed with and without
/// create_graph.
std::vector<torch::Tensor> results_of(const Function& function, bool with_gradients) {
  const auto in = leaves();
  const auto result = function.call(in);
  std::vector<torch::Tensor> all = {result};
  if (!with_gradients) return all;
  for (const bool create_graph : {false, true}) {
    for (const auto& gradient : torch::autograd::grad({result.sin().sum()}, {in.query, in.key, in.value}, {},
                                                      /*retain_graph=*/true, create_graph)) {
      all.push_back(gradient);
    }
  }
  return all;
}

void expect_the_same_under_autocast(const Function& function, bool with_gradients) {
  const auto expected = results_of(function, with_gradients);
  const Autocast autocast(torch::kBFloat16);
  const auto got = results_of(function, with_gradients);
  for (size_t n = 0; n < expected.size(); ++n) {
    EXPECT_TRUE(same_bits(got[n], expected[n])) << function.name << ", result " << n;
  }
}

TEST(UnderAutocast, HasNoEffectOnPublicFunctions) {
  for (const auto& function : other_functions()) expect_the_same_under_autocast(function, false);
}

TEST(UnderAutocast, HasNoEffectOnGradientsAndTheirGraph) {
  for (const auto& function : differentiable_functions()) expect_the_same_under_autocast(function, true);
}

TEST(UnderAutocast, HasNoEffectOnRecomputedChunks) {
  torch::manual_seed(0);
  // The arguments of tanh are too many for one chunk.
  const auto query = torch::randn({1, 1, 700, 8}).requires_grad_(), key = torch::randn({1, 1, 1000, 8}),
             w = torch::randn({8});
  const auto run = [&] { return additive_attention(query, key, key, w).square().sum(); };
  const auto expected = torch::autograd::grad({run()}, {query})[0];
  torch::Tensor output;
  {
    const attend::testing::Autocast autocast(torch::kBFloat16);
    output = run();
  }
  EXPECT_TRUE(same_bits(torch::autograd::grad({output}, {query})[0], expected));
}

}  // namespace
}  // namespace attend::testing
