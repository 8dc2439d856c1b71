// Backward passes whose gradients carry forward-mode tangents or are batched by vmap.
#include <attend/additive_attention.h>
#include <attend/attention.h>
#include <attend/linear_attention.h>
#include <attend/nn/multi_head_attention.h>
#include <torch/csrc/autograd/forward_grad.h>

#include "support.h"
#include "vmap.h"

namespace attend::testing {
namespace {

using Function = std::function<torch::Tensor(const torch::Tensor& x)>;

/// Functions of one tensor [B, H, L, D] with results of the same shape.
std::vector<std::pair<std::string, Function>> functions() {
  std::vector<std::pair<std::string, Function>> all;
  for (const auto backend : {Backend::fused, Backend::sdpa, Backend::reference}) {
    all.emplace_back(c10::str("attention, backend ", static_cast<int>(backend)), [=](const torch::Tensor& x) {
      return attention(x, x, x, {.mask = causal(), .backend = backend});
    });
  }
  all.emplace_back("attention_with_lse, sinks and a bias", [](const torch::Tensor& x) {
    const auto [output, logsumexp] = attention_with_lse(
        x, x, x, {.score_mod = bias(x.matmul(x.transpose(-2, -1)).tanh()), .sinks = x.mean({0, 2, 3})});
    return output * logsumexp.unsqueeze(-1);
  });
  for (const bool is_causal : {true, false}) {
    all.emplace_back(
        is_causal ? "linear_attention" : "linear_attention, not causal", [=](const torch::Tensor& x) {
          const auto [output, state] =
              linear_attention(x, x, x, {.is_causal = is_causal, .log_decay = x.mean(-1).sigmoid().log()});
          return output * state.mean();
        });
  }
  all.emplace_back("additive_attention", [](const torch::Tensor& x) {
    return additive_attention(x, x, x, torch::ones({x.size(-1)}, x.options()));
  });
  return all;
}

class Derivatives : public ::testing::Test {
 protected:
  Derivatives() { torch::manual_seed(0); }

  /// The gradient of sin(function(x) W) with respect to x.
  static torch::Tensor gradient(const Function& function, const torch::Tensor& x, const torch::Tensor& w) {
    return torch::autograd::grad({torch::matmul(function(x), w).sin().sum()}, {x})[0];
  }

  /// Compares the tangent of the gradient along a change of W with the central difference.
  static void check_tangent(const std::string& name, const Function& function, const torch::Tensor& x) {
    const auto w = torch::randn({x.size(-1), 3}, torch::kDouble), along = torch::randn_like(w);
    constexpr double kStep = 1e-5;
    const auto expected =
        (gradient(function, x, w + kStep * along) - gradient(function, x, w - kStep * along)) / (2 * kStep);
    const auto level = static_cast<int64_t>(torch::autograd::ForwardADLevel::get_next_idx());
    const auto dual = gradient(function, x, at::_make_dual(w, along, level));
    const auto tangent = std::get<1>(at::_unpack_dual(dual, level));
    torch::autograd::ForwardADLevel::release_idx(static_cast<uint64_t>(level));
    ASSERT_TRUE(tangent.defined()) << name;
    EXPECT_FALSE(dual.requires_grad()) << name;
    expect_close(tangent, expected, 1e-7 * std::max(1.0, expected.abs().max().item<double>()), name);
  }
};

TEST_F(Derivatives, AGradientKeepsItsTangent) {
  for (const auto& [name, function] : functions()) {
    check_tangent(name, function, torch::randn({1, 2, 5, 8}, torch::kDouble).requires_grad_());
  }
}

TEST_F(Derivatives, AGradientInChunksKeepsItsTangent) {
  // 2^22 arguments of tanh are one chunk of additive attention.
  const auto additive = [](const torch::Tensor& x) {
    return additive_attention(x, x, x, torch::ones({x.size(-1)}, x.options()));
  };
  check_tangent("additive_attention", additive,
                torch::randn({1, 1, 1500, 2}, torch::kDouble).requires_grad_());
}

TEST_F(Derivatives, AGradientOfAModuleKeepsItsTangent) {
  nn::MultiHeadAttention module(nn::MultiHeadAttentionOptions(8, 2));
  module->to(torch::kDouble);
  const auto function = [&](const torch::Tensor& x) { return module->forward(x[0]).unsqueeze(0); };
  check_tangent("MultiHeadAttention", function, torch::randn({1, 2, 5, 8}, torch::kDouble).requires_grad_());
}

TEST_F(Derivatives, GradientsMayBeBatched) {
  for (const auto& [name, function] : functions()) {
    const auto x = torch::randn({1, 2, 5, 8}, torch::kDouble).requires_grad_();
    const auto output = function(x), grads = torch::randn({3, 1, 2, 5, 8}, torch::kDouble);
    const auto backward = [&, &result = output](const torch::Tensor& grad) {
      return torch::autograd::grad({result}, {x}, {grad}, /*retain_graph=*/true)[0];
    };
    const auto batched = vmap(backward, grads);
    for (int64_t n = 0; n < 3; ++n) expect_close(batched[n], backward(grads[n]), 1e-12, name);
  }
}

TEST_F(Derivatives, DropoutUnderVmapObeysItsRandomness) {
  const auto x = torch::randn({1, 2, 5, 8}, torch::kDouble), zeros = torch::zeros({3}, torch::kDouble);
  const auto drop = [&](const torch::Tensor& zero) { return attention(x, x, x, {.dropout_p = 0.5}) + zero; };
  EXPECT_NE(error_of([&] { vmap(drop, zeros); }).find("randomness"), std::string::npos);
}

}  // namespace
}  // namespace attend::testing
