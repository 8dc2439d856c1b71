#include <attend/attention.h>
#include <attend/nn/attention.h>

#include <sstream>

#include "recorded.h"
#include "support.h"

namespace attend::testing {
namespace {

using nn::AttentionOptions;

class AttentionModule : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

// ---- the results of the Python class, recorded by tests/record/record_attention.py

TEST_F(AttentionModule, AgreesWithTheRecordedPythonClass) {
  const auto cases = recorded_cases("attention.pt");
  ASSERT_GE(cases.size(), 5U);
  for (const auto& [name, recorded] : cases) {
    SCOPED_TRACE(name);
    const auto q = recorded.at("q").clone().requires_grad_(), k = recorded.at("k").clone().requires_grad_(),
               v = recorded.at("v").clone().requires_grad_();
    const bool wide = q.scalar_type() == torch::kDouble;
    nn::Attention module(AttentionOptions(q.size(-1), k.size(-1), v.size(-1)));
    module->to(q.scalar_type());
    {
      const torch::NoGradGuard no_grad;
      for (auto& parameter : module->named_parameters())
        parameter.value().copy_(recorded.at(parameter.key()));
    }
    const auto output = module(q, k, v);
    // The tolerance is twice the machine epsilon of the dtype times the number of terms of the longest sum.
    const double tolerance = (wide ? 0x1p-52 : 0x1p-23) * 2 * 48;
    expect_close(output, recorded.at("output"), tolerance, "output");
    expect_close(module->weights(q, k), recorded.at("weights"), tolerance, "weights");
    output.backward(recorded.at("grad_output"));
    auto gradients = Recorded{{"q", q.grad()}, {"k", k.grad()}, {"v", v.grad()}};
    for (const auto& parameter : module->named_parameters())
      gradients[parameter.key()] = parameter.value().grad();
    for (const auto& [input, gradient] : gradients) {
      const auto& expected = recorded.at("grad." + input);
      const double largest = std::max(1.0, expected.abs().max().item<double>());
      expect_close(gradient, expected, tolerance * largest, "gradient of " + input);
    }
  }
}

// ---- options, names, shapes

TEST_F(AttentionModule, ParametersHavePythonsNames) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  std::map<std::string, std::vector<int64_t>> shapes;
  for (const auto& parameter : module->named_parameters())
    shapes[parameter.key()] = parameter.value().sizes().vec();
  const std::map<std::string, std::vector<int64_t>> expected = {
      {"q_linear.weight", {6, 4}}, {"q_linear.bias", {6}},      {"k_linear.weight", {6, 6}},
      {"k_linear.bias", {6}},      {"v_linear.weight", {5, 5}}, {"v_linear.bias", {5}}};
  EXPECT_EQ(shapes, expected);
  EXPECT_EQ(nn::Attention(AttentionOptions(4, 6, 5).bias(false))->parameters().size(), 3U);
  EXPECT_EQ(nn::Attention(4, 6, 5)->parameters().size(), 6U);
}

TEST_F(AttentionModule, PrettyPrints) {
  std::ostringstream text;
  text << nn::Attention(AttentionOptions(4, 6, 5).bias(false));
  EXPECT_EQ(text.str(),
            "attend::nn::Attention(d_q=4, d_k=6, d_v=5, bias=false)(\n"
            "  (q_linear): torch::nn::Linear(in_features=4, out_features=6, bias=false)\n"
            "  (k_linear): torch::nn::Linear(in_features=6, out_features=6, bias=false)\n"
            "  (v_linear): torch::nn::Linear(in_features=5, out_features=5, bias=false)\n)");
}

TEST_F(AttentionModule, MaskedKeysGetNoWeight) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  const auto q = torch::randn({2, 3, 4}), k = torch::randn({2, 7, 6}), v = torch::randn({2, 7, 5});
  auto allowed = torch::rand({2, 3, 7}) < 0.5;
  allowed.select(-1, 2).fill_(true);
  allowed[1][2].fill_(false);
  const auto weights = module->weights(q, k, allowed);
  EXPECT_EQ(weights.masked_select(~allowed).abs().max().item<double>(), 0);
  auto sums = torch::ones({2, 3});
  sums[1][2] = 0;
  expect_close(weights.sum(-1), sums, 1e-6);
  expect_close(module(q, k, v, allowed), torch::matmul(weights, module->v_linear(v)), 1e-6);
  expect_close(module(q[0], k[0], v[0], allowed[0]), module(q, k, v, allowed)[0], 1e-6);
  expect_close(module(q, k, v, causal()), module(q, k, v, torch::ones({3, 7}, torch::kBool).tril(4)), 1e-6);
}

TEST_F(AttentionModule, EmptyInputsGiveEmptyOrZeroOutputs) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  EXPECT_EQ(module(torch::rand({0, 3, 4}), torch::rand({0, 7, 6}), torch::rand({0, 7, 5})).sizes(),
            (std::vector<int64_t>{0, 3, 5}));
  EXPECT_EQ(module(torch::rand({2, 0, 4}), torch::rand({2, 7, 6}), torch::rand({2, 7, 5})).sizes(),
            (std::vector<int64_t>{2, 0, 5}));
  const auto blind = module(torch::rand({2, 3, 4}), torch::rand({2, 0, 6}), torch::rand({2, 0, 5}));
  EXPECT_TRUE(same_bits(blind, torch::zeros({2, 3, 5})));
}

// ---- as a module of torch::nn

TEST_F(AttentionModule, SavesAndLoads) {
  nn::Attention module(AttentionOptions(4, 6, 5)), loaded(AttentionOptions(4, 6, 5));
  std::stringstream stream;
  torch::save(module, stream);
  torch::load(loaded, stream);
  const auto q = torch::randn({3, 4}), k = torch::randn({7, 6}), v = torch::randn({7, 5});
  EXPECT_TRUE(same_bits(loaded(q, k, v), module(q, k, v)));
}

TEST_F(AttentionModule, ClonesDeeply) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  const auto q = torch::randn({3, 4}), k = torch::randn({7, 6}), v = torch::randn({7, 5});
  const auto before = module(q, k, v);
  nn::Attention copy(std::dynamic_pointer_cast<nn::AttentionImpl>(module->clone()));
  {
    const torch::NoGradGuard no_grad;
    for (auto& parameter : copy->parameters()) parameter.zero_();
  }
  EXPECT_TRUE(same_bits(module(q, k, v), before));
  EXPECT_EQ(copy->forward(q, k, v).abs().max().item<double>(), 0);
}

// torch::nn::parallel::replicate clones a module to each device in this way; its header requires CUDA's.
TEST_F(AttentionModule, ClonesToADeviceForDataParallel) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  const auto q = torch::randn({2, 3, 4}), k = torch::randn({2, 7, 6}), v = torch::randn({2, 7, 5});
  nn::Attention replica(std::dynamic_pointer_cast<nn::AttentionImpl>(module->clone(torch::Device("cpu"))));
  EXPECT_NE(replica.get(), module.get());
  EXPECT_TRUE(same_bits(replica->forward(q, k, v), module->forward(q, k, v)));
}

TEST_F(AttentionModule, ConvertsDtypeAndDevice) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  for (const auto dtype : {torch::kDouble, torch::kBFloat16, torch::kHalf}) {
    module->to(dtype);
    const auto output =
        module(torch::ones({2, 3, 4}, dtype), torch::ones({2, 7, 6}, dtype), torch::ones({2, 7, 5}, dtype));
    EXPECT_EQ(output.scalar_type(), dtype);
    output.sum().backward();
    EXPECT_EQ(module->q_linear->weight.grad().scalar_type(), dtype);
    module->zero_grad();
  }
  module->to(torch::Device(torch::kCPU), torch::kFloat);
  EXPECT_EQ(module(torch::ones({3, 4}), torch::ones({7, 6}), torch::ones({7, 5})).scalar_type(),
            torch::kFloat);
}

TEST_F(AttentionModule, ChecksDtypesOnADeviceWithoutAutocast) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  for (auto linear : {module->q_linear, module->k_linear, module->v_linear}) {
    linear->weight = linear->weight.detach().to(torch::kMeta);
    linear->bias = linear->bias.detach().to(torch::kMeta);
  }
  const auto on_meta = [](at::IntArrayRef sizes, torch::ScalarType dtype = torch::kFloat) {
    return torch::ones(sizes, torch::dtype(dtype).device(torch::kMeta));
  };
  EXPECT_EQ(error_of([&] { module(on_meta({3, 4}), on_meta({7, 6}, torch::kHalf), on_meta({7, 5})); }),
            "attend::nn::Attention: k: expected the parameters' dtype float32, got float16 [7, 6]");
}

TEST_F(AttentionModule, AutocastAcceptsTheDtypesThatItCasts) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  const auto q = torch::randn({3, 4}), k = torch::randn({7, 6}), v = torch::randn({7, 5});
  const Autocast autocast(torch::kBFloat16);
  EXPECT_EQ(module(q, k.to(torch::kHalf), v.to(torch::kBFloat16)).scalar_type(), torch::kBFloat16);
  const auto q_error = [&](torch::ScalarType dtype) { return error_of([&] { module(q.to(dtype), k, v); }); };
  EXPECT_EQ(q_error(torch::kLong),
            "attend::nn::Attention: q: expected the parameters' dtype float32, got int64 [3, 4]");
  EXPECT_EQ(q_error(torch::kDouble),
            "attend::nn::Attention: q: expected the parameters' dtype float32, got float64 [3, 4]");
  module->to(torch::kDouble);
  EXPECT_EQ(q_error(torch::kFloat),
            "attend::nn::Attention: q: expected the parameters' dtype float64, got float32 [3, 4]");
  const auto as_double = [](const torch::Tensor& tensor) { return tensor.to(torch::kDouble); };
  EXPECT_EQ(module(as_double(q), as_double(k), as_double(v)).scalar_type(), torch::kDouble);
}

TEST_F(AttentionModule, WorksInSequentialAndAnyModule) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  const auto q = torch::randn({2, 3, 4}), k = torch::randn({2, 7, 6}), v = torch::randn({2, 7, 5});
  torch::nn::Sequential sequential(module, torch::nn::Linear(5, 2));
  EXPECT_EQ(sequential->forward(q, k, v).sizes(), (std::vector<int64_t>{2, 3, 2}));
  torch::nn::AnyModule any(module);
  EXPECT_TRUE(same_bits(any.forward(q, k, v, causal()), module->forward(q, k, v, causal())));
}

TEST_F(AttentionModule, GradientsAgreeWithCentralDifferences) {
  nn::Attention module(AttentionOptions(3, 4, 2));
  module->to(torch::kDouble);
  const auto leaf = [](at::IntArrayRef sizes) {
    return torch::randn(sizes, torch::kDouble).requires_grad_();
  };
  const auto q = leaf({2, 3, 3}), k = leaf({2, 5, 4}), v = leaf({2, 5, 2});
  auto inputs = module->parameters();
  inputs.insert(inputs.end(), {q, k, v});
  expect_gradients([&] { return module(q, k, v, causal()).sin().sum(); }, inputs);
}

TEST_F(AttentionModule, TrainingLowersTheLoss) {
  nn::Attention module(AttentionOptions(4, 8, 5));
  const auto q = torch::randn({8, 3, 4}), k = torch::randn({8, 7, 8}), v = torch::randn({8, 7, 5});
  const auto target = v.slice(1, 0, 3);
  torch::optim::Adam optimizer(module->parameters(), torch::optim::AdamOptions(1e-2));
  const auto loss = [&] { return torch::mse_loss(module(q, k, v), target); };
  const double before = loss().item<double>();
  for (int step = 0; step < 100; ++step) {
    optimizer.zero_grad();
    loss().backward();
    optimizer.step();
  }
  EXPECT_LT(loss().item<double>(), 0.8 * before);
}

// ---- wrong input

TEST_F(AttentionModule, ErrorsNameTheArgument) {
  nn::Attention module(AttentionOptions(4, 6, 5));
  const auto q = torch::rand({2, 3, 4}), k = torch::rand({2, 7, 6}), v = torch::rand({2, 7, 5});
  const auto error = [&](const torch::Tensor& q_, const torch::Tensor& k_, const torch::Tensor& v_,
                         const Mask& mask = {}) { return error_of([&] { module(q_, k_, v_, mask); }); };
  EXPECT_EQ(error_of([] { nn::Attention(0, 6, 5); }),
            "attend::nn::Attention: d_q: expected a width of at least 1, got 0");
  EXPECT_EQ(error_of([] { nn::Attention(4, -6, 5); }),
            "attend::nn::Attention: d_k: expected a width of at least 1, got -6");
  EXPECT_EQ(error_of([] { nn::Attention(4, 6, 0); }),
            "attend::nn::Attention: d_v: expected a width of at least 1, got 0");
  EXPECT_EQ(error({}, k, v), "attend::nn::Attention: q: expected a tensor, got an undefined tensor");
  EXPECT_EQ(error(torch::rand({4}), k, v),
            "attend::nn::Attention: q: expected [B, L, 4] or [L, 4], got float32 [4]");
  EXPECT_EQ(error(torch::rand({1, 2, 3, 4}), k, v),
            "attend::nn::Attention: q: expected [B, L, 4] or [L, 4], got float32 [1, 2, 3, 4]");
  EXPECT_EQ(error(torch::rand({2, 3, 5}), k, v),
            "attend::nn::Attention: q: expected [B, L, 4], got float32 [2, 3, 5]");
  EXPECT_EQ(error(q, torch::rand({7, 6}), v),
            "attend::nn::Attention: k: expected [B, L, 6], got float32 [7, 6]");
  EXPECT_EQ(error(q, torch::rand({3, 7, 6}), v),
            "attend::nn::Attention: k: expected the batch size of q, 2, got float32 [3, 7, 6]");
  EXPECT_EQ(error(q, k, torch::rand({2, 6, 5})),
            "attend::nn::Attention: v: expected the length of k, 7, got float32 [2, 6, 5]");
  EXPECT_EQ(error(q, k, torch::rand({1, 7, 5})),
            "attend::nn::Attention: v: expected the batch size of q, 2, got float32 [1, 7, 5]");
  EXPECT_EQ(error(q.to(torch::kDouble), k, v),
            "attend::nn::Attention: q: expected the parameters' dtype float32, got float64 [2, 3, 4]");
  EXPECT_EQ(error(q, k.to(torch::kLong), v),
            "attend::nn::Attention: k: expected the parameters' dtype float32, got int64 [2, 7, 6]");
  EXPECT_EQ(error(q, k, v.to(torch::kMeta)),
            "attend::nn::Attention: v: expected a tensor on the parameters' device cpu, got meta");
  EXPECT_EQ(error(q, k, v, torch::ones({3, 6}, torch::kBool)),
            "attend::nn::Attention: mask: expected a shape that broadcasts to the scores [2, 3, 7], got bool "
            "[3, 6]");
  EXPECT_EQ(error_of([&] { module->weights(q, torch::rand({2, 7, 7})); }),
            "attend::nn::Attention: k: expected [B, L, 6], got float32 [2, 7, 7]");
}

}  // namespace
}  // namespace attend::testing
