// Compares the fused kernels with the recurrence in float64. The allowed error is derived from that of the
// chunked reference in the same dtype.
#include <ATen/Parallel.h>
#include <attend/linear_attention.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <array>

#include "linear_forms.h"
#include "support.h"

namespace attend::testing {
namespace {

struct Sizes {
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
};

/// The least number of elements of a result whose largest error is compared between two forms: a few elements
/// can be exact in one form by chance. Results have at least one element for each step of each head and for
/// each element of the state of a head; the gradient of a decay per head has one element for each head.
constexpr int64_t kMinElements = 64;
constexpr int64_t kMinHeads = 64;

enum class Decay { none, per_head, per_step, per_channel };

struct Setting {
  std::string name;
  Decay decay = Decay::none;
  FeatureMap feature_map = FeatureMap::identity;
  bool normalize = false;
  bool is_causal = true;
  bool is_delta = false;
};

std::vector<Setting> settings() {
  return {
      {"linear attention", Decay::none, FeatureMap::elu_plus_one, true},
      {"linear attention, not causal", Decay::none, FeatureMap::relu, true, false},
      {"lightning attention", Decay::per_head},
      {"Mamba-2", Decay::per_step},
      {"gated linear attention", Decay::per_channel},
      {"normalised, decay per head", Decay::per_head, FeatureMap::relu, true},
      {"normalised, decay per step", Decay::per_step, FeatureMap::elu_plus_one, true},
      {"normalised, decay per channel", Decay::per_channel, FeatureMap::elu_plus_one, true},
      {"decay per step, not causal", Decay::per_step, FeatureMap::identity, false, false},
      {"DeltaNet", Decay::none, FeatureMap::identity, false, true, true},
      {"Gated DeltaNet", Decay::per_step, FeatureMap::identity, false, true, true},
      {"Gated DeltaNet, not causal", Decay::per_head, FeatureMap::identity, false, false, true},
      {"Kimi delta attention", Decay::per_channel, FeatureMap::identity, false, true, true},
      {"normalised delta rule", Decay::per_step, FeatureMap::relu, true, true, true},
  };
}

/// Returns random values that every dtype represents exactly.
torch::Tensor random(at::IntArrayRef sizes) {
  return torch::randn(sizes).to(torch::kBFloat16).to(torch::kDouble);
}

/// Returns the logarithms of random decays between 0.5 and 1; some steps have decays of 0, nearly 0, and 1.
torch::Tensor random_decay(const Sizes& s, Decay decay) {
  if (decay == Decay::none) return {};
  const auto draw = [](at::IntArrayRef sizes) {
    return (0.5 + 0.5 * torch::rand(sizes)).log().to(torch::kDouble);
  };
  if (decay == Decay::per_head) return draw({s.heads});
  auto g =
      decay == Decay::per_step ? draw({s.batch, s.heads, s.keys}) : draw({s.batch, s.heads, s.keys, s.d});
  if (s.keys > 20) {
    g.select(2, 9).fill_(-std::numeric_limits<double>::infinity());
    g.slice(2, 15, 17).fill_(-1e4);
    g.select(2, 18).fill_(0);
  }
  return g;
}

struct Inputs {
  torch::Tensor query, key, value, log_decay, beta, initial_state, key_lengths;

  static Inputs random(const Sizes& s, const Setting& setting) {
    const auto along_rows = torch::nn::functional::NormalizeFuncOptions().dim(-1);
    Inputs in{testing::random({s.batch, s.heads, s.queries, s.d}),
              // The delta rule is stable for keys of norm at most 1.
              (0.99 *
               torch::nn::functional::normalize(torch::randn({s.batch, s.kv_heads, s.keys, s.d}), along_rows))
                  .to(torch::kBFloat16)
                  .to(torch::kDouble),
              testing::random({s.batch, s.kv_heads, s.keys, s.d_v}),
              random_decay(s, setting.decay),
              {},
              testing::random({s.batch, s.heads, s.d, s.d_v + (setting.normalize ? 1 : 0)}),
              {}};
    if (setting.is_delta) {
      in.beta = torch::rand({s.batch, s.heads, s.keys}).to(torch::kDouble);
      if (s.keys > 20) {
        in.beta.select(2, 5).fill_(0);
        in.beta.select(2, 6).fill_(1);
      }
    }
    if (setting.normalize) {  // positive features keep normalisers away from 0
      in.query = in.query.abs().clamp_min(0.5);
      in.key = in.key.abs();
      in.initial_state = in.initial_state.abs().clamp_min(0.5);
    }
    if (s.batch > 1) in.key_lengths = torch::tensor({s.keys / 2, s.keys});
    return in;
  }

  /// Returns copies that are leaves of the autograd graph; decays, beta and states have compute type.
  Inputs leaves(torch::ScalarType dtype) const {
    const auto state = dtype == torch::kDouble ? torch::kDouble : torch::kFloat;
    const auto leaf = [](const torch::Tensor& tensor, torch::ScalarType type) {
      return tensor.defined() ? tensor.detach().to(type).clone().requires_grad_() : tensor;
    };
    return {leaf(query, dtype), leaf(key, dtype),           leaf(value, dtype), leaf(log_decay, state),
            leaf(beta, state),  leaf(initial_state, state), key_lengths};
  }
};

LinearAttentionParams params_of(const Inputs& in, const Setting& setting) {
  return {.feature_map = setting.feature_map,
          .normalize = setting.normalize,
          .is_causal = setting.is_causal,
          .log_decay = in.log_decay,
          .beta = in.beta,
          .initial_state = in.initial_state,
          .key_lengths = in.key_lengths};
}

/// Returns a fixed weighted sum of the elements, the loss of the tests.
torch::Tensor weigh(const torch::Tensor& tensor) {
  const auto weights = torch::linspace(-1, 1, tensor.numel(), torch::kDouble).cos().view(tensor.sizes());
  return (tensor * weights.to(tensor.scalar_type())).sum().to(torch::kDouble);
}

std::vector<torch::Tensor> gradients(const Inputs& leaves) {
  std::vector<torch::Tensor> all;
  for (const auto& leaf :
       {leaves.query, leaves.key, leaves.value, leaves.log_decay, leaves.beta, leaves.initial_state}) {
    if (leaf.defined()) all.push_back(leaf.grad().defined() ? leaf.grad() : torch::zeros_like(leaf));
  }
  return all;
}

/// Returns the output, the final state, and the gradients of a fixed weighted sum of both.
std::vector<torch::Tensor> run(const Inputs& leaves, const Setting& setting, LinearForm form) {
  const auto [output, final_state] =
      linear_attention_as(form, leaves.query, leaves.key, leaves.value, params_of(leaves, setting));
  (weigh(output) + weigh(final_state)).backward();
  std::vector<torch::Tensor> results = {output.detach(), final_state.detach()};
  for (const auto& gradient : gradients(leaves)) results.push_back(gradient);
  return results;
}

/// Returns the largest finite absolute value of each result.
std::vector<double> sizes_of(const std::vector<torch::Tensor>& results) {
  std::vector<double> sizes;
  for (const auto& result : results) {
    const auto finite = result.masked_fill(result.isinf(), 0);
    sizes.push_back(finite.numel() == 0 ? 0 : finite.abs().max().item<double>());
  }
  return sizes;
}

/// Returns the sizes of the gradients through the numerator. With the normaliser, a gradient is the
/// difference between the part through the numerator and the part through the normaliser. Both parts may be
/// much larger than the difference: for D = 1 they cancel.
std::vector<double> sizes_through_numerator(const Inputs& in, Setting setting) {
  const auto leaves = in.leaves(torch::kDouble);
  setting.normalize = false;
  const int64_t d_v = leaves.value.size(-1);
  auto numerator = leaves, normaliser_inputs = leaves;
  numerator.initial_state = leaves.initial_state.narrow(-1, 0, d_v);
  normaliser_inputs.initial_state = leaves.initial_state.narrow(-1, d_v, 1);
  normaliser_inputs.value = torch::ones_like(leaves.value.sum(-1, /*keepdim=*/true));
  normaliser_inputs.beta = torch::Tensor();  // the delta rule does not apply to the normaliser
  const auto output_of = [&](const Inputs& inputs) {
    return linear_attention_as(LinearForm::recurrent, inputs.query, inputs.key, inputs.value,
                               params_of(inputs, setting))
        .output;
  };
  const auto normaliser = output_of(normaliser_inputs).detach();
  weigh(output_of(numerator) / normaliser.masked_fill(normaliser == 0, 1)).backward();
  auto sizes = sizes_of(gradients(leaves));
  sizes.insert(sizes.begin(), 2, 1);
  return sizes;
}

/// Returns the sizes of the results without the delta rule, S_t = a_t S_{t-1} + beta_t k_t v_t^T, for the
/// first chunk. With the delta rule, each step subtracts the value that the state returns for its key, so
/// that within a chunk of either form, terms of these sizes cancel. The other chunks are like the first.
std::vector<double> sizes_without_delta_rule(const Inputs& in, const Setting& setting) {
  constexpr int64_t kChunk = 64;
  auto first = in;
  for (auto* tensor : {&first.query, &first.key, &first.value, &first.log_decay, &first.beta}) {
    if (tensor->defined() && tensor->dim() > 1) *tensor = tensor->slice(2, 0, kChunk);
  }
  if (in.key_lengths.defined()) first.key_lengths = in.key_lengths.clamp_max(kChunk);
  const auto leaves = first.leaves(torch::kDouble);
  auto plain = leaves;
  plain.value =
      leaves.value.repeat_interleave(in.query.size(1) / in.key.size(1), 1) * leaves.beta.unsqueeze(-1);
  plain.key = leaves.key.repeat_interleave(in.query.size(1) / in.key.size(1), 1);
  plain.beta = torch::Tensor();
  const auto [output, final_state] = linear_attention_as(LinearForm::recurrent, plain.query, plain.key,
                                                         plain.value, params_of(plain, setting));
  (weigh(output) + weigh(final_state)).backward();
  auto results = gradients(leaves);
  results.insert(results.begin(), {output.detach(), final_state.detach()});
  return sizes_of(results);
}

/// Returns, for each result of `run`, the size of the terms whose sum it is.
std::vector<double> sizes_of_terms(const Inputs& in, const Setting& setting) {
  if (setting.normalize) return sizes_through_numerator(in, setting);
  if (setting.is_delta) return sizes_without_delta_rule(in, setting);
  return std::vector<double>(8, 1);
}

std::vector<double> errors(const std::vector<torch::Tensor>& results,
                           const std::vector<torch::Tensor>& exact) {
  std::vector<double> all;
  for (size_t n = 0; n < exact.size(); ++n) all.push_back(max_difference(results[n], exact[n]));
  return all;
}

constexpr std::array kDtypes = {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf};

/// Returns the errors of plain ATen code in each dtype. For float64 no more exact result exists: the errors
/// are taken to be those of float32 times the ratio of the unit roundoffs, plus the difference between the
/// two plain forms in float64.
std::vector<std::vector<double>> plain_errors(const Inputs& in, const Setting& setting,
                                              const std::vector<torch::Tensor>& exact) {
  std::vector<std::vector<double>> all;
  for (const auto dtype : kDtypes) {
    all.push_back(errors(run(in.leaves(dtype), setting, LinearForm::chunked), exact));
  }
  const double ratio = unit_roundoff(torch::kDouble) / unit_roundoff(torch::kFloat);
  for (size_t n = 0; n < exact.size(); ++n) all[0][n] += all[1][n] * ratio;
  return all;
}

constexpr size_t kDecayGradient = 5;  // the index of the gradient of the decay in the results of `run`

void expect_accurate(const Sizes& sizes, const Setting& setting) {
  const auto in = Inputs::random(sizes, setting);
  const auto exact = run(in.leaves(torch::kDouble), setting, LinearForm::recurrent);
  const bool skips_decay = setting.decay == Decay::per_head && sizes.heads < kMinHeads;
  const auto plain = plain_errors(in, setting, exact);
  const auto terms = sizes_of_terms(in, setting);
  for (size_t type = 0; type < kDtypes.size(); ++type) {
    const auto ours = run(in.leaves(kDtypes[type]), setting, LinearForm::fused);
    for (size_t n = 0; n < exact.size(); ++n) {
      if (skips_decay && n == kDecayGradient) continue;
      expect_as_accurate(
          ours[n], plain[type][n], exact[n], n < 2 ? 2 : 3,
          c10::str(setting.name, ", ", c10::toString(kDtypes[type]), ", ", sizes.queries, " queries, ",
                   sizes.keys, " keys, ", sizes.d, " x ", sizes.d_v, ", result ", n),
          terms[n]);
    }
  }
}

class FusedLinearAttention : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TEST_F(FusedLinearAttention, IsAsAccurateAsPlainCodeInEveryDtype) {
  const std::vector<Sizes> sizes = {
      {2, 64, 32, 1, 1, 8, 59},   {1, 10, 10, 7, 7, 1, 8},   {2, 4, 2, 63, 63, 59, 64},
      {1, 8, 4, 64, 64, 64, 128}, {1, 4, 1, 65, 65, 128, 1}, {2, 4, 4, 130, 130, 8, 8},
  };
  for (const auto& s : sizes) {
    for (const auto& setting : settings()) expect_accurate(s, setting);
  }
}

TEST_F(FusedLinearAttention, IsAsAccurateAsPlainCodeOverManyChunks) {
  for (const auto& setting : settings()) {
    const bool has_chunked_decay = setting.is_causal && setting.decay != Decay::per_head;
    if (!has_chunked_decay) continue;
    for (const auto& s : std::vector<Sizes>{{1, 2, 2, 1025, 1025, 16, 16}, {1, 8, 4, 330, 330, 16, 16}}) {
      expect_accurate(s, setting);
    }
  }
}

/// Tests every length with every size of keys and of values. The test takes minutes, so it is disabled; the
/// two tests above run a selection. --gtest_also_run_disabled_tests runs it.
class EveryLengthAndSize : public ::testing::TestWithParam<Setting> {};

TEST_P(EveryLengthAndSize, DISABLED_IsAsAccurateAsPlainCode) {
  torch::manual_seed(0);
  for (const int64_t length : {1, 7, 63, 64, 65, 130, 1025}) {
    for (const int64_t d : {1, 8, 59, 64, 128}) {
      for (const int64_t d_v : {1, 8, 59, 64, 128}) {
        const int64_t per_head = std::min(length, d * d_v);
        const int64_t pairs = (kMinElements / 2 + per_head - 1) / per_head;
        const Sizes many{2, std::max<int64_t>(4, 2 * pairs), pairs, length, length, d, d_v};
        expect_accurate(length < 1000 ? many : Sizes{1, 2 * pairs, pairs, length, length, d, d_v},
                        GetParam());
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Settings, EveryLengthAndSize, ::testing::ValuesIn(settings()));

TEST_F(FusedLinearAttention, GradientOfADecayPerHeadIsAsAccurateAsPlainCode) {
  for (const auto& setting : settings()) {
    if (setting.decay != Decay::per_head) continue;
    for (const int64_t length : {7, 64, 130})
      expect_accurate({1, kMinHeads, 64, length, length, 8, 8}, setting);
  }
}

TEST_F(FusedLinearAttention, QueriesAreAlignedWithTheLastKey) {
  for (const auto& s : std::vector<Sizes>{{2, 2, 1, 3, 70, 5, 4},
                                          {2, 2, 1, 70, 3, 5, 4},
                                          {2, 2, 2, 5, 0, 5, 4},
                                          {2, 2, 2, 0, 5, 5, 4},
                                          {2, 2, 2, 0, 0, 5, 4},
                                          {2, 4, 2, 0, 0, 5, 4},
                                          {2, 4, 2, 3, 70, 5, 4},
                                          {2, 4, 2, 70, 3, 5, 4}}) {
    for (const auto& setting : settings()) expect_accurate(s, setting);
  }
}

TEST_F(FusedLinearAttention, EmptyBatchAndNoHeads) {
  for (const auto& s : std::vector<Sizes>{{0, 2, 1, 3, 3, 4, 5}, {1, 0, 0, 3, 3, 4, 5}}) {
    for (const auto& setting : settings()) {
      const auto in = Inputs::random(s, setting);
      const auto results = run(in.leaves(torch::kFloat), setting, LinearForm::fused);
      const auto expected = run(in.leaves(torch::kFloat), setting, LinearForm::recurrent);
      for (size_t n = 0; n < expected.size(); ++n)
        EXPECT_TRUE(same_bits(results[n], expected[n])) << setting.name;
    }
  }
}

TEST_F(FusedLinearAttention, ValuesWithoutColumns) {
  for (const auto& s :
       std::vector<Sizes>{{1, 1, 1, 3, 3, 4, 0}, {2, 1, 1, 3, 3, 4, 0}, {2, 4, 2, 3, 3, 4, 0}}) {
    for (const auto& setting : settings()) expect_accurate(s, setting);
  }
}

/// Tests lazy negations, and ZeroTensors, which have no memory.
TEST_F(FusedLinearAttention, NegatedViewsAndZeroTensorsEqualTheirValues) {
  const auto lazy_tensor = [](const torch::Tensor& x, bool is_zero) {
    return is_zero ? torch::_efficientzerotensor(x.sizes(), x.options()) : torch::_neg_view(-x);
  };
  for (const auto& setting : settings()) {
    for (const bool is_zero : {false, true}) {
      const auto in = Inputs::random({2, 2, 1, 5, 5, 4, 3}, setting).leaves(torch::kFloat);
      for (auto member : {&Inputs::log_decay, &Inputs::beta, &Inputs::initial_state}) {
        if (!(in.*member).defined()) continue;
        auto plain = in, lazy = in;
        lazy.*member = lazy_tensor(in.*member, is_zero);
        plain.*member = (lazy.*member).clone();
        const auto compute = [&](const Inputs& inputs) {
          return linear_attention_as(LinearForm::fused, inputs.query, inputs.key, inputs.value,
                                     params_of(inputs, setting));
        };
        EXPECT_TRUE(same_bits(compute(lazy).output, compute(plain).output)) << setting.name;
        EXPECT_TRUE(same_bits(compute(lazy).final_state, compute(plain).final_state)) << setting.name;
      }
      const auto [output, state] =
          linear_attention_as(LinearForm::fused, in.query, in.key, in.value, params_of(in, setting));
      const auto grad_output = lazy_tensor(torch::randn_like(output), is_zero),
                 grad_state = lazy_tensor(torch::randn_like(state), is_zero);
      const auto gradient = [&, output = output, state = state](const torch::Tensor& grad_of_output,
                                                                const torch::Tensor& grad_of_state) {
        return torch::autograd::grad({output, state}, {in.query}, {grad_of_output, grad_of_state},
                                     /*retain_graph=*/true)[0];
      };
      EXPECT_TRUE(
          same_bits(gradient(grad_output, grad_state), gradient(grad_output.clone(), grad_state.clone())))
          << setting.name;
    }
  }
}

TEST_F(FusedLinearAttention, AnyStrides) {
  const auto q = torch::randn({2, 70, 3, 8}).transpose(1, 2), k = torch::randn({2, 3, 8, 70}).transpose(2, 3),
             v = torch::randn({2, 1, 70, 5}).expand({2, 3, 70, 5});
  const auto g = (torch::rand({2, 70, 3}).log() / 2).transpose(1, 2);
  const LinearAttentionParams params{.feature_map = FeatureMap::identity,
                                     .normalize = false,
                                     .is_causal = true,
                                     .log_decay = g,
                                     .backend = Backend::fused};
  const auto strided = linear_attention(q, k, v, params);
  const auto contiguous = linear_attention(q.contiguous(), k.contiguous(), v.contiguous(), params);
  expect_close(strided.output, contiguous.output, 0);
  expect_close(strided.final_state, contiguous.final_state, 0);
}

TEST_F(FusedLinearAttention, DecaysAndBetaAboveOne) {
  const Setting setting{"growth", Decay::per_step, FeatureMap::identity, false, true, true};
  auto in = Inputs::random({1, 2, 2, 130, 130, 8, 8}, setting);
  in.log_decay = torch::rand({1, 2, 130}).to(torch::kDouble) / 100;
  in.beta = 1 + torch::rand({1, 2, 130}).to(torch::kDouble) / 2;
  const auto exact = run(in.leaves(torch::kDouble), setting, LinearForm::recurrent);
  const auto ours = run(in.leaves(torch::kDouble), setting, LinearForm::fused);
  const auto plain = plain_errors(in, setting, exact);
  for (size_t n = 0; n < exact.size(); ++n) {
    expect_as_accurate(ours[n], plain[0][n], exact[n], n < 2 ? 2 : 3, c10::str("result ", n));
  }
}

/// A sequence in two calls, divided between two chunks, gives the same bits as in one call, also if it has
/// several groups of resident chunks.
TEST_F(FusedLinearAttention, PartsOfWholeChunksGiveTheSameBits) {
  const int64_t length = 2500, split = 2240;
  const torch::NoGradGuard no_grad;
  const auto expect_same_bits = [&](int64_t heads, const Setting& setting) {
    const auto in = Inputs::random({1, heads, 1, length, length, 12, 20}, setting).leaves(torch::kFloat);
    const auto part = [&](int64_t begin, int64_t end, const torch::Tensor& state) {
      const auto at = [&](const torch::Tensor& tensor) {
        return tensor.defined() && tensor.dim() > 1 ? tensor.slice(2, begin, end) : tensor;
      };
      return linear_attention(at(in.query), at(in.key), at(in.value),
                              {.feature_map = setting.feature_map,
                               .normalize = setting.normalize,
                               .is_causal = true,
                               .log_decay = at(in.log_decay),
                               .beta = at(in.beta),
                               .initial_state = state,
                               .backend = Backend::fused});
    };
    const auto whole = part(0, length, in.initial_state);
    const auto first = part(0, split, in.initial_state), second = part(split, length, first.final_state);
    EXPECT_TRUE(same_bits(torch::cat({first.output, second.output}, 2), whole.output)) << setting.name;
    EXPECT_TRUE(same_bits(second.final_state, whole.final_state)) << setting.name;
  };
  for (const auto& setting : settings()) {
    for (const int64_t heads : {2, 8}) {
      if (setting.is_causal) expect_same_bits(heads, setting);
    }
  }
}

/// Expects accurate outputs of causal linear attention with one decay per step, in float32.
void expect_accurate_outputs(const torch::Tensor& q, const torch::Tensor& k, const torch::Tensor& v,
                             const torch::Tensor& g, const std::string& what) {
  const auto compute = [&](torch::ScalarType dtype, LinearForm form) {
    return linear_attention_as(form, q.to(dtype), k.to(dtype), v.to(dtype),
                               {.feature_map = FeatureMap::identity,
                                .normalize = false,
                                .is_causal = true,
                                .log_decay = g.to(dtype)})
        .output;
  };
  const auto exact = compute(torch::kDouble, LinearForm::fused);
  const double plain_error = max_difference(compute(torch::kFloat, LinearForm::chunked), exact);
  expect_as_accurate(compute(torch::kFloat, LinearForm::fused), plain_error, exact, 2, what);
}

TEST_F(FusedLinearAttention, AMillionTokensStayAccurate) {
  const int64_t length = int64_t{1} << 20;
  const auto q = random({1, 1, length, 1}), k = random({1, 1, length, 1}), v = random({1, 1, length, 1});
  auto g = torch::rand({1, 1, length}) * -1e-3;
  g.masked_fill_(torch::rand({1, 1, length}) < 1e-4, -1e4);
  expect_accurate_outputs(q, k, v, g, "a million tokens");
}

/// Tests inputs for which rounding errors have the same sign at each step: those of a growing sum, and of a
/// decay near 1.
TEST_F(FusedLinearAttention, RoundingErrorsDoNotAccumulateOverALongSequence) {
  constexpr int64_t kLength = 1 << 15;
  for (const int64_t heads : {1, 8}) {
    const std::vector<int64_t> sizes = {1, heads, kLength, 2};
    for (const double decay : {0.0, -1.3e-5}) {
      expect_accurate_outputs(torch::rand(sizes) + 0.5, torch::full(sizes, 0.7), torch::full(sizes, 0.9),
                              torch::full({1, heads, kLength}, decay),
                              c10::str(heads, " heads, decay ", decay));
    }
  }
}

// ---- one token at a time

/// Returns the outputs and the final state of a sequence that is computed step by step.
std::vector<torch::Tensor> run_steps(const Inputs& in, const Setting& setting) {
  const torch::NoGradGuard no_grad;
  auto state = in.initial_state.clone();
  const auto* const data = state.data_ptr();
  std::vector<torch::Tensor> outputs;
  for (int64_t t = 0; t < in.key.size(2); ++t) {
    const auto at_t = [&](const torch::Tensor& tensor) {
      return tensor.defined() && tensor.dim() > 1 ? tensor.narrow(2, t, 1) : tensor;
    };
    outputs.push_back(linear_attention_step(at_t(in.query), at_t(in.key), at_t(in.value), state,
                                            {.feature_map = setting.feature_map,
                                             .normalize = setting.normalize,
                                             .log_decay = at_t(in.log_decay),
                                             .beta = at_t(in.beta)}));
  }
  EXPECT_EQ(state.data_ptr(), data);
  return {torch::cat(outputs, 2), state};
}

TEST_F(FusedLinearAttention, StepsEqualTheSequence) {
  for (const auto& s : std::vector<Sizes>{{2, 4, 2, 30, 30, 59, 70}, {1, 3, 3, 30, 30, 8, 128}}) {
    for (const auto& setting : settings()) {
      if (!setting.is_causal) continue;
      auto in = Inputs::random(s, setting);
      in.key_lengths = torch::Tensor();
      const auto exact = run(in.leaves(torch::kDouble), setting, LinearForm::recurrent);
      const auto plain = plain_errors(in, setting, exact);
      for (size_t type = 0; type < kDtypes.size(); ++type) {
        const auto ours = run_steps(in.leaves(kDtypes[type]), setting);
        for (size_t n = 0; n < ours.size(); ++n) {
          expect_as_accurate(
              ours[n], plain[type][n], exact[n], 2,
              c10::str(setting.name, ", ", c10::toString(kDtypes[type]), ", ", s.d_v, ", result ", n));
        }
      }
    }
  }
}

TEST_F(FusedLinearAttention, StepsWithRandomFeaturesEqualTheSequence) {
  const auto q = random({1, 2, 6, 8}), k = random({1, 2, 6, 8}), v = random({1, 2, 6, 4});
  LinearAttentionParams params{.feature_map = FeatureMap::random_features,
                               .projection = orthogonal_projection(16, 8).to(torch::kDouble),
                               .is_causal = true};
  const auto whole = linear_attention(q, k, v, params);
  auto state = torch::zeros({1, 2, 16, 5}, torch::kDouble);
  for (int64_t t = 0; t < 6; ++t) {
    const auto output =
        linear_attention_step(q.narrow(2, t, 1), k.narrow(2, t, 1), v.narrow(2, t, 1), state, params);
    expect_close(output, whole.output.narrow(2, t, 1), 1e-12);
  }
  expect_close(state, whole.final_state, 1e-12);
}

TEST_F(FusedLinearAttention, StepsWithTwoAndThreeDimensionsHaveOneHead) {
  const auto q = random({3, 1, 1, 5}), k = random({3, 1, 1, 5}), v = random({3, 1, 1, 4}),
             initial = random({3, 1, 5, 4}), g = -random({3, 1, 1, 5}).abs();
  const auto run_step = [&](const auto& view) {
    auto state = view(initial).clone();
    const auto output = linear_attention_step(
        view(q), view(k), view(v), state,
        {.feature_map = FeatureMap::identity, .normalize = false, .log_decay = view(g)});
    return std::pair(output, state);
  };
  const auto four = run_step([](const torch::Tensor& x) { return x; });
  const auto three = run_step([](const torch::Tensor& x) { return x.squeeze(1); });
  const auto two = run_step([](const torch::Tensor& x) { return x[1][0]; });
  EXPECT_TRUE(same_bits(three.first, four.first.squeeze(1)) &&
              same_bits(three.second, four.second.squeeze(1)));
  EXPECT_TRUE(same_bits(two.first, four.first[1][0]) && same_bits(two.second, four.second[1][0]));
}

TEST_F(FusedLinearAttention, AStepMarksTheStateAsModifiedForAutograd) {
  const auto x = torch::randn({1, 1, 1, 4});
  auto state = torch::zeros({1, 1, 4, 5});
  const auto weight = torch::ones_like(state).requires_grad_();
  const auto loss = (weight * state).sum();
  linear_attention_step(x, x, x, state);
  EXPECT_EQ(state._version(), 1);
  EXPECT_NE(error_of([&] { loss.backward(); }).find("modified by an inplace operation"), std::string::npos);
  const c10::InferenceMode inference;
  auto inference_state = torch::zeros({1, 1, 4, 5});
  linear_attention_step(x, x, x, inference_state);
  EXPECT_TRUE(same_bits(inference_state, state));
}

TEST_F(FusedLinearAttention, StepsRejectTangents) {
  const auto level = torch::autograd::ForwardADLevel::get_next_idx();
  const auto x = torch::randn({1, 1, 1, 4});
  const auto dual = at::_make_dual(x, x, static_cast<int64_t>(level));
  auto state = torch::zeros({1, 1, 4, 5});
  EXPECT_EQ(error_of([&] { linear_attention_step(x, dual, x, state); }),
            "attend::linear_attention_step: key: expected a tensor that requires no gradient, got float32 "
            "[1, 1, 1, 4] with a forward-mode tangent");
  torch::autograd::ForwardADLevel::release_idx(level);
}

TEST_F(FusedLinearAttention, StepErrors) {
  const auto x = torch::ones({1, 2, 1, 4});
  auto state = torch::zeros({1, 2, 4, 5}), narrow = torch::zeros({1, 2, 4, 4}), half = state.to(torch::kHalf);
  const auto error = [](const torch::Tensor& token, torch::Tensor& states,
                        const LinearAttentionParams& params) {
    return error_of([&] { linear_attention_step(token, token, token, states, params); });
  };
  const std::string prefix = "attend::linear_attention_step: ";
  EXPECT_EQ(error(torch::ones({1, 2, 3, 4}), state, {}),
            prefix + "query: expected a length of 1, got float32 [1, 2, 3, 4]");
  EXPECT_EQ(error(x, narrow, {}),
            prefix + "state: expected [B, H, D, Dv + 1] = [1, 2, 4, 5], got float32 [1, 2, 4, 4]");
  EXPECT_EQ(error(x.to(torch::kHalf), half, {}),
            prefix +
                "state: expected a contiguous tensor of dtype float32, got float16 [1, 2, 4, 5] of strides "
                "[40, 20, 5, 1]");
  auto negated = torch::_neg_view(state), zeros = torch::_efficientzerotensor({1, 2, 4, 5}, x.options());
  for (auto* wrong : {&negated, &zeros}) {
    EXPECT_EQ(error(x, *wrong, {}),
              prefix +
                  "state: expected a materialized tensor, got a tensor with the negative bit set, or a "
                  "ZeroTensor");
  }
  EXPECT_EQ(error(x, state, {.initial_state = state}),
            prefix + "initial_state: expected none, got float32 [1, 2, 4, 5]");
  EXPECT_EQ(error(x.clone().requires_grad_(), state, {}),
            prefix +
                "query: expected a tensor that requires no gradient, got float32 [1, 2, 1, 4] that requires "
                "one");
}

// ---- threads

void expect_same_bits_for_every_number_of_threads(const Sizes& sizes, const Setting& setting) {
  const int threads = at::get_num_threads();
  const auto in = Inputs::random(sizes, setting);
  at::set_num_threads(1);
  const auto expected = run(in.leaves(torch::kFloat), setting, LinearForm::fused);
  for (const int count : {2, 3, 5, 8}) {
    at::set_num_threads(count);
    const auto results = run(in.leaves(torch::kFloat), setting, LinearForm::fused);
    for (size_t n = 0; n < expected.size(); ++n) {
      EXPECT_TRUE(same_bits(results[n], expected[n]))
          << setting.name << ", " << sizes.heads << " heads, " << count << " threads, result " << n;
    }
  }
  at::set_num_threads(threads);
}

/// With few heads the tasks are chunks, with many they are columns of the values; the backward is sequential
/// where its tasks keep all threads busy.
TEST_F(FusedLinearAttention, SameBitsForEveryNumberOfThreads) {
  for (const auto& sizes : {Sizes{1, 3, 1, 2500, 2500, 24, 20}, Sizes{1, 9, 3, 150, 150, 24, 60},
                            Sizes{2, 3, 3, 40, 150, 24, 64}, Sizes{2, 3, 3, 150, 40, 16, 20}}) {
    for (const auto& setting : settings()) expect_same_bits_for_every_number_of_threads(sizes, setting);
  }
}

/// PyTorch divides a sum among the threads if it has at least 32,768 terms.
TEST_F(FusedLinearAttention, GradientOfOneHeadsDecayHasTheSameBitsForEveryNumberOfThreads) {
  expect_same_bits_for_every_number_of_threads({1, 1, 1, 40000, 40000, 2, 2},
                                               {"lightning attention", Decay::per_head});
}

TEST_F(FusedLinearAttention, RefusalsNameTheReason) {
  const auto x = torch::randn({1, 1, 3, 4}).to(torch::kMeta);
  EXPECT_EQ(error_of([&] { linear_attention(x, x, x, {.is_causal = true, .backend = Backend::fused}); }),
            "attend::linear_attention: backend: expected a backend that can serve the call, got fused, which "
            "cannot: the "
            "tensors are not on the CPU");
}

}  // namespace
}  // namespace attend::testing
