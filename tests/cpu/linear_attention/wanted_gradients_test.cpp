// Gradients of some of the inputs have the same bits as those of all inputs, in both schedules.
#include <ATen/Parallel.h>
#include <attend/linear_attention.h>

#include "support.h"

namespace attend::testing {
namespace {

struct Setting {
  int64_t heads, decay_width;
  bool is_delta, normalize, is_causal;
};

/// query, key, value, log_decay, beta and initial_state.
std::vector<torch::Tensor> leaves(const Setting& s, torch::ScalarType dtype) {
  const auto make = [&](at::IntArrayRef sizes) { return torch::rand(sizes).to(dtype).requires_grad_(); };
  const auto wide = [](const torch::Tensor& tensor) { return tensor.to(torch::kFloat).requires_grad_(); };
  std::vector<torch::Tensor> all = {make({2, s.heads, 90, 24}),
                                    make({2, s.heads / 2, 130, 24}),
                                    make({2, s.heads / 2, 130, 40}),
                                    {},
                                    {},
                                    {}};
  if (s.decay_width == 1) all[3] = wide(-torch::rand({2, s.heads, 130}));
  if (s.decay_width > 1) all[3] = wide(-torch::rand({2, s.heads, 130, s.decay_width}));
  if (s.is_delta) all[4] = wide(0.1 * torch::rand({2, s.heads, 130}));
  all[5] = wide(torch::rand({2, s.heads, 24, 40 + (s.normalize ? 1 : 0)}));
  return all;
}

torch::Tensor loss(const std::vector<torch::Tensor>& in, const Setting& s) {
  const auto [output, state] = linear_attention(in[0], in[1], in[2],
                                                {.feature_map = FeatureMap::elu_plus_one,
                                                 .normalize = s.normalize,
                                                 .is_causal = s.is_causal,
                                                 .log_decay = in[3],
                                                 .beta = in[4],
                                                 .initial_state = in[5],
                                                 .key_lengths = torch::tensor({100, 130}),
                                                 .backend = Backend::fused});
  const auto weigh = [](const torch::Tensor& tensor) {
    return (tensor * torch::linspace(-1, 1, tensor.numel(), tensor.options()).view(tensor.sizes())).sum();
  };
  return weigh(output).to(torch::kFloat) + weigh(state);
}

void expect_subsets(const Setting& s, torch::ScalarType dtype, const std::string& name) {
  const auto in = leaves(s, dtype);
  std::vector<torch::Tensor> defined;
  for (const auto& leaf : in) {
    if (leaf.defined()) defined.push_back(leaf);
  }
  const auto all = torch::autograd::grad({loss(in, s)}, defined);
  for (size_t subset = 1; subset < size_t{1} << defined.size(); ++subset) {
    std::vector<torch::Tensor> wanted, expected;
    for (size_t n = 0; n < defined.size(); ++n) {
      if ((subset >> n & 1) == 0) continue;
      wanted.push_back(defined[n]);
      expected.push_back(all[n]);
    }
    const auto found = torch::autograd::grad({loss(in, s)}, wanted);
    for (size_t n = 0; n < wanted.size(); ++n) {
      EXPECT_TRUE(same_bits(found[n], expected[n])) << name << ", subset " << subset << ", gradient " << n;
    }
  }
}

TEST(WantedLinearGradients, OfEverySubsetHaveTheBitsOfAll) {
  torch::manual_seed(0);
  for (const int threads : {1, 3}) {  // with three, some backwards are parallel
    at::set_num_threads(threads);
    for (const int64_t decay_width : {0, 1, 24}) {
      for (const bool is_delta : {false, true}) {
        for (const bool is_causal : {true, false}) {
          const Setting s{2, decay_width, is_delta, decay_width == 0, is_causal};
          const auto dtype = is_causal ? torch::kFloat : torch::kBFloat16;
          expect_subsets(s, dtype,
                         "threads " + std::to_string(threads) + " decay " + std::to_string(decay_width) +
                             " delta " + std::to_string(is_delta) + " causal " + std::to_string(is_causal));
        }
      }
    }
  }
  at::set_num_threads(1);
}

}  // namespace
}  // namespace attend::testing
