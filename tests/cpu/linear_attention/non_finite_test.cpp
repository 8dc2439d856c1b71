// NaNs and infinities: a NaN stays one, and nothing that comes later changes an output.
#include <attend/linear_attention.h>

#include "linear_forms.h"
#include "support.h"

namespace attend::testing {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

const std::vector<LinearForm> forms = {LinearForm::fused, LinearForm::chunked, LinearForm::recurrent};

/// The tensors of a call, of which `input` is one.
struct Inputs {
  torch::Tensor query, key, value, log_decay, beta;

  static Inputs random(int64_t heads, int64_t length) {
    const auto make = [&](int64_t width) { return torch::randn({1, heads, length, width}); };
    return {make(24), 0.2 * make(24), make(40), {}, {}};
  }
  LinearAttentionParams params() const {
    return {.feature_map = FeatureMap::identity,
            .normalize = false,
            .is_causal = true,
            .log_decay = log_decay,
            .beta = beta};
  }
};

/// A copy with `value` at step t of head 1, in each channel if the tensor has any.
torch::Tensor with(const torch::Tensor& tensor, int64_t t, double value) {
  auto copy = tensor.clone();
  copy.select(1, 1).select(1, t).fill_(value);
  return copy;
}

TEST(NonFinite, ANaNStaysOneInEveryFeatureMapAndForm) {
  torch::manual_seed(0);
  for (const int64_t heads : {2, 8}) {  // both schedules
    const auto in = Inputs::random(heads, 100);
    const auto nan_at = [](const torch::Tensor& tensor) {
      auto copy = tensor.clone();
      copy[0][1][50][2] = kNaN;
      return copy;
    };
    for (const auto map : {FeatureMap::relu, FeatureMap::elu_plus_one, FeatureMap::identity}) {
      for (const auto form : forms) {
        const std::string name = "heads " + std::to_string(heads) + " map " +
                                 std::to_string(static_cast<int>(map)) + " form " +
                                 std::to_string(static_cast<int>(form));
        const LinearAttentionParams params{.feature_map = map, .normalize = false, .is_causal = true};
        const auto of_query = linear_attention_as(form, nan_at(in.query), in.key, in.value, params);
        EXPECT_TRUE(of_query.output[0][1][50].isnan().all().item<bool>()) << name;
        EXPECT_EQ(of_query.output.isnan().sum().item<int64_t>(), 40) << name;
        EXPECT_FALSE(of_query.final_state.isnan().any().item<bool>()) << name;
        const auto of_key = linear_attention_as(form, in.query, nan_at(in.key), in.value, params);
        EXPECT_TRUE(of_key.final_state[0][1][2].isnan().all().item<bool>()) << name;
        EXPECT_EQ(of_key.final_state.isnan().sum().item<int64_t>(), 40) << name;
        EXPECT_TRUE(of_key.output[0][1].slice(0, 50).isnan().all().item<bool>()) << name;
      }
    }
  }
}

TEST(NonFinite, ANaNStaysOneInAStep) {
  const auto make = [](int64_t width) { return torch::randn({1, 2, 1, width}); };
  for (const auto map : {FeatureMap::relu, FeatureMap::elu_plus_one, FeatureMap::identity}) {
    auto query = make(8), key = make(8);
    key[0][1][0][2] = kNaN;
    const LinearAttentionParams params{.feature_map = map, .normalize = false};
    auto state = torch::rand({1, 2, 8, 5});
    linear_attention_step(query, key, make(5), state, params);
    EXPECT_TRUE(state[0][1][2].isnan().all().item<bool>());
    EXPECT_EQ(state.isnan().sum().item<int64_t>(), 5);
    query[0][0][0][3] = kNaN;
    state = torch::rand({1, 2, 8, 5});
    const auto output = linear_attention_step(query, make(8), make(5), state, params);
    EXPECT_TRUE(output[0][0].isnan().all().item<bool>());
  }
}

using Member = torch::Tensor Inputs::*;

TEST(NonFinite, EarlierOutputsHaveTheBitsOfAFiniteCall) {
  torch::manual_seed(1);
  constexpr int64_t kLength = 100;
  const std::vector<std::pair<std::string, Member>> members = {{"query", &Inputs::query},
                                                               {"key", &Inputs::key},
                                                               {"value", &Inputs::value},
                                                               {"log_decay", &Inputs::log_decay},
                                                               {"beta", &Inputs::beta}};
  for (const int64_t heads : {2, 8}) {
    for (const int64_t decay_width : {0, 1, 24}) {
      for (const bool is_delta : {false, true}) {
        auto in = Inputs::random(heads, kLength);
        if (decay_width == 1) in.log_decay = -torch::rand({1, heads, kLength});
        if (decay_width > 1) in.log_decay = -torch::rand({1, heads, kLength, decay_width});
        if (is_delta) in.beta = torch::rand({1, heads, kLength});
        for (const auto form : forms) {
          const auto expected = linear_attention_as(form, in.query, in.key, in.value, in.params()).output;
          for (const auto& [name, member] : members) {
            if (!(in.*member).defined()) continue;
            for (const int64_t t : {3, 50, 63, 64, 99}) {
              for (const double value : {kNaN, kInfinity, -kInfinity}) {
                auto changed = in;
                changed.*member = with(in.*member, t, value);
                const auto output =
                    linear_attention_as(form, changed.query, changed.key, changed.value, changed.params())
                        .output;
                EXPECT_TRUE(same_bits(output.slice(2, 0, t), expected.slice(2, 0, t)))
                    << name << " = " << value << " at " << t << ", heads " << heads << ", decay "
                    << decay_width << ", delta rule " << is_delta << ", form " << static_cast<int>(form);
                if (name == "value" && !is_delta) {
                  EXPECT_FALSE(output[0][1][t].isfinite().any().item<bool>()) << value << " at " << t;
                }
              }
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace attend::testing
