// Tests that activation checkpointing gives the gradients of a plain call, and that the second call of the
// function has the generator state and the autocast settings of the first.
#include <attend/checkpointing.h>
#include <torch/nn/functional/dropout.h>

#include <stdexcept>

#include "support.h"

namespace attend::testing {
namespace {

namespace F = torch::nn::functional;

class Checkpointing : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TEST_F(Checkpointing, GradientsAreThoseOfThePlainCallAlsoTheSecondAndWithDropout) {
  const auto x = torch::randn({3, 4}, torch::kDouble).requires_grad_();
  const auto weight = torch::randn({4, 4}, torch::kDouble).requires_grad_();
  const auto run = [&](const std::vector<at::Tensor>& in) {
    EXPECT_FALSE(in[1].defined());
    return F::dropout(in[0].matmul(weight), F::DropoutFuncOptions().p(0.5)).tanh();
  };
  const auto gradients = [&](const at::Tensor& output) {
    auto first = torch::autograd::grad({output.square().sum()}, {x, weight}, {}, /*retain_graph=*/true,
                                       /*create_graph=*/true);
    const auto second = torch::autograd::grad({first[0].sum() + first[1].square().sum()}, {x, weight});
    first.insert(first.end(), second.begin(), second.end());
    return first;
  };
  torch::manual_seed(1);
  const auto expected = gradients(run({x, {}}));
  torch::manual_seed(1);
  const auto output = checkpointed(run, {x, {}}, {weight});
  torch::manual_seed(2);  // a new generator state between the passes must have no effect
  const auto drawn_before = torch::randn({2});
  torch::manual_seed(2);
  const auto got = gradients(output);
  const auto drawn_after = torch::randn({2});
  for (size_t n = 0; n < expected.size(); ++n) expect_close(got[n], expected[n], 1e-12);
  EXPECT_TRUE(same_bits(drawn_after, drawn_before));
}

TEST_F(Checkpointing, TheSecondRunSeesTheAutocastOfTheFirst) {
  const auto x = torch::randn({3, 4}).requires_grad_();
  std::vector<torch::ScalarType> dtypes;
  const auto run = [&](const std::vector<at::Tensor>& in) {
    const auto product = in[0].matmul(in[0].t());
    dtypes.push_back(product.scalar_type());
    return product;
  };
  at::Tensor output;
  {
    const Autocast autocast(torch::kBFloat16);
    output = checkpointed(run, {x});
  }
  output.sum().backward();
  EXPECT_EQ(dtypes, (std::vector{torch::kBFloat16, torch::kBFloat16}));
}

TEST_F(Checkpointing, AnErrorOfTheSecondRunLeavesTheGeneratorAsItWas) {
  const auto x = torch::randn({3}).requires_grad_();
  int calls = 0;
  const auto output = checkpointed(
      [&](const std::vector<at::Tensor>& in) {
        if (++calls == 2) throw std::runtime_error("again");
        return in[0] * torch::rand({3});
      },
      {x});
  torch::manual_seed(5);
  const auto expected = torch::randn({2});
  torch::manual_seed(5);
  EXPECT_THROW(output.sum().backward(), std::exception);
  EXPECT_TRUE(same_bits(torch::randn({2}), expected));
}

TEST_F(Checkpointing, WithoutAGradientItIsOneCall) {
  int calls = 0;
  const auto run = [&](const std::vector<at::Tensor>& in) { return ++calls, in[0] * 2; };
  EXPECT_FALSE(checkpointed(run, {torch::ones({2})}).requires_grad());
  EXPECT_EQ(calls, 1);
}

TEST_F(Checkpointing, Errors) {
  const auto x = torch::ones({2});
  const auto run = [](const std::vector<at::Tensor>& in) { return in[0]; };
  EXPECT_EQ(error_of([&] { checkpointed({}, {x}); }),
            "attend::checkpointed: run: expected a function, got none");
  EXPECT_EQ(error_of([&] { checkpointed(run, {x}, {at::Tensor()}); }),
            "attend::checkpointed: captured: expected defined tensors, got an undefined tensor");
}

}  // namespace
}  // namespace attend::testing
