// Tests products with weights by LibTorch's private oneDNN operator, and without this operator.
#include "nn/onednn_linear.h"

#include "support.h"

namespace attend::testing {
namespace {

using nn::OneDnnLinear;
using nn::Pointwise;

class OneDnn : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
  torch::NoGradGuard no_grad_;
  torch::Tensor x_ = torch::randn({100, 48}), weight_ = torch::randn({32, 48}), bias_ = torch::randn({32});
};

TEST_F(OneDnn, KnowsTheSchemaOfThisLibTorch) {
  EXPECT_TRUE(nn::onednn_linear().is_available());
  const auto exact =
      torch::linear(x_.to(torch::kDouble), weight_.to(torch::kDouble), bias_.to(torch::kDouble));
  const double plain_error = max_difference(torch::linear(x_, weight_, bias_), exact);
  expect_as_accurate(nn::onednn_linear()(x_, weight_, bias_, false), plain_error, exact, 2, "linear");
  const auto gelu = torch::gelu(exact);
  expect_as_accurate(nn::onednn_linear()(x_, weight_, bias_, true),
                     max_difference(torch::gelu(torch::linear(x_, weight_, bias_)), gelu), gelu, 2, "gelu");
}

TEST_F(OneDnn, IsNotCalledIfItsSchemaDiffers) {
  const OneDnnLinear other(
      "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm, "
      "*, "
      "bool trans) -> Tensor Y");
  ASSERT_FALSE(other.is_available());
  const auto product = torch::linear(x_, weight_, bias_);
  const auto linear = [&](Pointwise pointwise) { return nn::linear(x_, weight_, bias_, pointwise, other); };
  EXPECT_TRUE(same_bits(linear(Pointwise::none), product));
  EXPECT_TRUE(same_bits(linear(Pointwise::relu), torch::relu(product)));
  EXPECT_TRUE(same_bits(linear(Pointwise::gelu), torch::gelu(product)));
}

}  // namespace
}  // namespace attend::testing
