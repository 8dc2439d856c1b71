// Score modifications and masks, alone and in pairs, in every backend, are compared with their formulas in
// plain ATen operations in float64, and must be as accurate as these operations are in the same dtype.
#include <ATen/Parallel.h>
#include <attend/attention.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support.h"

namespace program {

using namespace attend;  // NOLINT(google-build-using-namespace): as programs write it
using namespace std;     // NOLINT(google-build-using-namespace)

double decay(double x) { return exp(-abs(x)) + tanh(1.0F) * log(1 + x * x); }

}  // namespace program

namespace attend::testing {
namespace {

using Tensors = std::vector<torch::Tensor>;

struct Sizes {
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
};

/// A score modification of tensors with gradients, and its formula for scores [B, H, Lq, Lk].
struct ScoreCase {
  std::string name;
  std::function<ScoreMod(const Tensors&)> mod = [](const Tensors&) { return ScoreMod(); };
  std::function<torch::Tensor(const torch::Tensor& scores, const Tensors&)> formula =
      [](const torch::Tensor& scores, const Tensors&) { return scores; };
  Tensors tensors = {};  ///< float64
};

/// A mask, and the scores that it allows as a boolean tensor; undefined if it allows all.
struct MaskCase {
  std::string name;
  Mask mask = {};
  torch::Tensor allowed = {};
};

/// The positions of the queries among the keys as a column, and the positions of the keys as a row.
torch::Tensor query_positions(const Sizes& s) {
  return torch::arange(s.queries).view({-1, 1}) + (s.keys - s.queries);
}
torch::Tensor key_positions(const Sizes& s) { return torch::arange(s.keys).view({1, -1}); }

Tensors leaves_of(const Tensors& tensors, torch::ScalarType dtype) {
  Tensors leaves;
  for (const auto& tensor : tensors) leaves.push_back(tensor.detach().to(dtype).clone().requires_grad_());
  return leaves;
}

/// Returns query, key and value with elements that `dtype` represents exactly, as float64.
Tensors random_inputs(const Sizes& s, torch::ScalarType dtype) {
  const auto make = [&](at::IntArrayRef sizes) {
    return torch::randn(sizes, torch::kDouble).to(dtype).to(torch::kDouble);
  };
  return {make({s.batch, s.heads, s.queries, s.d}), make({s.batch, s.kv_heads, s.keys, s.d}),
          make({s.batch, s.kv_heads, s.keys, s.d_v})};
}

/// Returns the output, the logsumexp, and the gradients of a fixed function of both.
Tensors with_gradients(const torch::Tensor& output, const torch::Tensor& logsumexp, const Tensors& leaves) {
  const auto direction =
      torch::linspace(-1, 1, output.numel(), torch::kDouble).cos().to(output.scalar_type());
  const auto finite = torch::where(logsumexp.isinf(), 0.0, logsumexp);
  const auto loss = (output * direction.view(output.sizes())).sum() + 0.5 * finite.sum();
  auto results = torch::autograd::grad({loss}, leaves, {}, /*retain_graph=*/{}, /*create_graph=*/false,
                                       /*allow_unused=*/true);
  for (size_t n = 0; n < leaves.size(); ++n) {
    if (!results[n].defined()) results[n] = torch::zeros_like(leaves[n]);
  }
  results.insert(results.begin(), {output.detach(), logsumexp.detach()});
  return results;
}

struct Call {
  Sizes sizes;
  ScoreCase score = {};
  MaskCase mask = {};
  std::optional<double> scale = {};
  Tensors inputs = {};       ///< query, key and value
  torch::Tensor sinks = {};  ///< float64 [H], or undefined
  double dropout_p = 0;

  /// Returns query, key, value, the tensors of the score modification and the sinks.
  Tensors leaves(torch::ScalarType dtype) const {
    auto all = leaves_of(inputs, dtype);
    for (auto& tensor : leaves_of(score.tensors, dtype)) all.push_back(tensor);
    if (sinks.defined()) all.push_back(leaves_of({sinks}, dtype)[0]);
    return all;
  }

  /// Returns the tensors of the score modification among `all`, the result of `leaves`.
  Tensors score_tensors(const Tensors& all) const {
    return {all.begin() + 3, all.begin() + 3 + static_cast<int64_t>(score.tensors.size())};
  }

  Tensors attend(torch::ScalarType dtype, Backend backend) const {
    if (dropout_p > 0) torch::manual_seed(5);
    const auto all = leaves(dtype);
    const auto [output, logsumexp] =
        attention_with_lse(all[0], all[1], all[2],
                           {.mask = mask.mask,
                            .score_mod = score.mod(score_tensors(all)),
                            .scale = scale,
                            .dropout_p = dropout_p,
                            .sinks = sinks.defined() ? all.back() : torch::Tensor(),
                            .backend = backend});
    return with_gradients(output, logsumexp, all);
  }

  /// Computes softmax(mask(formula(scale Q K^T))) V operation by operation. A sink is a further key whose
  /// score is the sink and whose value is 0.
  Tensors plain(torch::ScalarType dtype) const {
    const auto all = leaves(dtype);
    const int64_t group = all[0].size(1) / all[1].size(1);
    const auto key = all[1].repeat_interleave(group, 1), value = all[2].repeat_interleave(group, 1);
    auto scores = torch::matmul(all[0], key.transpose(-2, -1)) *
                  (scale ? *scale : 1 / std::sqrt(static_cast<double>(sizes.d)));
    scores = score.formula(scores, score_tensors(all));
    if (mask.allowed.defined()) scores = scores.masked_fill(~mask.allowed, -INFINITY);
    if (sinks.defined()) {
      const auto column = all.back().view({1, -1, 1, 1}).expand({sizes.batch, -1, sizes.queries, 1});
      scores = torch::cat({scores.expand({sizes.batch, -1, -1, -1}), column}, -1);
    }
    const auto fully_masked = scores.detach().eq(-INFINITY).all(-1, /*keepdim=*/true);
    const auto finite = scores.masked_fill(fully_masked, 0);
    const auto weights = torch::softmax(finite, -1).masked_fill(fully_masked, 0).slice(-1, 0, sizes.keys);
    // The maximum is subtracted first, since the gradient of ATen's logsumexp is inaccurate for large scores.
    const auto largest = finite.detach().amax(-1, /*keepdim=*/true);
    const auto logsumexp = ((finite - largest).exp().sum(-1).log() + largest.squeeze(-1))
                               .masked_fill(fully_masked.squeeze(-1), -INFINITY);
    return with_gradients(torch::matmul(weights, value), logsumexp, all);
  }
};

/// Returns the largest error of each result of plain ATen code. For half types the plain code computes in
/// float32 and rounds its results, which is more accurate than computing in the half type. For float64 the
/// error is taken to be twice that in float32 times the ratio of the unit roundoffs, since the float64 oracle
/// has an error of the same size.
std::vector<double> plain_errors(const Tensors& plain, const Tensors& exact, torch::ScalarType dtype) {
  std::vector<double> errors;
  for (size_t n = 0; n < plain.size(); ++n) {
    const bool is_half = dtype == torch::kBFloat16 || dtype == torch::kHalf;
    const double error = max_difference(is_half && n != 1 ? plain[n].to(dtype) : plain[n], exact[n]);
    const double ratio = unit_roundoff(torch::kDouble) / unit_roundoff(torch::kFloat);
    errors.push_back(dtype == torch::kDouble ? error * 2 * ratio : error);
  }
  return errors;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// Expects at most twice the error of plain code, three times for gradients, in the median over `draws`
/// random inputs. The largest error of a single draw varies widely, especially with large scores.
void expect_accurate(Call call, torch::ScalarType dtype, const std::vector<Backend>& backends,
                     const std::string& what, int draws = 3) {
  std::map<std::pair<Backend, size_t>, std::vector<double>> error_ratios;  // error / allowed error
  for (int draw = 0; draw < draws; ++draw) {
    call.inputs = random_inputs(call.sizes, dtype);
    const auto exact = call.plain(torch::kDouble);
    const auto plain = plain_errors(call.plain(torch::kFloat), exact, dtype);
    for (const auto backend : backends) {
      const auto ours = call.attend(dtype, backend);
      for (size_t n = 0; n < ours.size(); ++n) {
        const double largest =
            std::max(1.0, exact[n].masked_fill(exact[n].isinf(), 0).abs().max().item<double>());
        const double allowed =
            (n < 2 ? 2 : 3) * plain[n] + 4 * unit_roundoff(ours[n].scalar_type()) * largest;
        error_ratios[{backend, n}].push_back(max_difference(ours[n], exact[n]) / allowed);
      }
    }
  }
  for (const auto& [result, errors] : error_ratios) {
    EXPECT_LE(median(errors), 1) << what << ", result " << result.second << ", backend "
                                 << static_cast<int>(result.first);
  }
}

const std::vector<torch::ScalarType> dtypes = {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf};

class ScoreMods : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

// ---- the cases

std::vector<MaskCase> mask_cases(const Sizes& s) {
  const auto query = query_positions(s), key = key_positions(s);
  const auto random = torch::rand({s.batch, 1, s.queries, s.keys}) < 0.7;
  const auto lengths = torch::linspace(0, static_cast<double>(s.keys), s.batch).to(torch::kLong);
  return {{"no mask"},
          {"causal", causal(), key <= query},
          {"window", window(5, 2), (key >= query - 5) & (key <= query + 2)},
          {"key_lengths", key_lengths(lengths), key < lengths.view({-1, 1, 1, 1})},
          {"prefix", causal() | prefix(lengths), (key <= query) | (key < lengths.view({-1, 1, 1, 1}))},
          {"dense", dense(random), random},
          {"lambda", mask_mod([](Position at) {
             return at.batch == at.head % 2 || (at.query / 8 + at.key / 8) % 3 != 0;
           }),
           (torch::arange(s.batch).view({-1, 1, 1, 1}) == torch::arange(s.heads).view({-1, 1, 1}) % 2) |
               ((query.div(8, "trunc") + key.div(8, "trunc")) % 3 != 0)}};
}

ScoreCase softcap_case(double cap) {
  return {c10::str("softcap ", cap), [=](const Tensors&) { return softcap(cap); },
          [=](const torch::Tensor& scores, const Tensors&) { return cap * torch::tanh(scores / cap); }};
}

ScoreCase alibi_case(const Sizes& s) {
  const auto distance = (query_positions(s) - key_positions(s)).abs();
  return {"alibi",
          [](const Tensors& tensors) { return alibi(tensors[0]); },
          [=](const torch::Tensor& scores, const Tensors& tensors) {
            return scores - tensors[0].view({-1, 1, 1}) * distance;
          },
          {torch::exp2(-torch::arange(1, s.heads + 1, torch::kDouble))}};
}

ScoreCase bias_case(const Sizes& s) {
  return {
      "bias",
      [](const Tensors& tensors) { return bias(tensors[0]); },
      [](const torch::Tensor& scores, const Tensors& tensors) { return scores + tensors[0]; },
      {torch::randn({s.heads, s.queries, s.keys}, torch::kDouble).to(torch::kBFloat16).to(torch::kDouble)}};
}

/// Returns a case with T5's buckets, computed as in the authors' code.
ScoreCase relative_bias_case(const Sizes& s, const RelativeBuckets& buckets) {
  auto distance = key_positions(s) - query_positions(s);
  const int64_t count = buckets.bidirectional ? buckets.count / 2 : buckets.count, single = count / 2;
  const auto first = buckets.bidirectional ? (distance > 0) * count : torch::zeros_like(distance);
  distance = buckets.bidirectional ? distance.abs() : -distance.clamp_max(0);
  const double ratio = static_cast<double>(buckets.max_distance) / static_cast<double>(single);
  const auto logarithm =
      torch::log(distance.to(torch::kDouble) / static_cast<double>(single)) / std::log(ratio);
  const auto large =
      single + (logarithm * static_cast<double>(count - single)).trunc().clamp_min(0).to(torch::kLong);
  const auto bucket = first + torch::where(distance < single, distance, large.clamp_max(count - 1));
  return {c10::str("relative_bias, ", buckets.bidirectional ? "both directions" : "one direction"),
          [=](const Tensors& tensors) { return relative_bias(tensors[0], buckets); },
          [=](const torch::Tensor& scores, const Tensors& tensors) {
            return scores + tensors[0].t().index({torch::indexing::Slice(), bucket});
          },
          {torch::randn({buckets.count, s.heads}, torch::kDouble).to(torch::kBFloat16).to(torch::kDouble)}};
}

/// Returns a case with a lambda that calls every function and depends on every member of the position.
ScoreCase lambda_case(const Sizes& s) {
  const auto query = query_positions(s), key = key_positions(s);
  const auto batch = torch::arange(s.batch).view({-1, 1, 1, 1}),
             head = torch::arange(s.heads).view({-1, 1, 1});
  return {"lambda",
          [](const Tensors&) {
            return score_mod([](auto score, Position at) {
              const auto softplus = log(1 + exp(-abs(score))) + (score > 0 ? score : 0);
              const auto capped = at.query == at.key ? 2 * score : tanh(score / 3);
              return softplus - capped + (at.batch - 2 * at.head) * 0.125;
            });
          },
          [=](const torch::Tensor& scores, const Tensors&) {
            const auto softplus = torch::log(1 + torch::exp(-scores.abs())) + torch::relu(scores);
            const auto capped = torch::where(query == key, 2 * scores, torch::tanh(scores / 3));
            return softplus - capped + (batch - 2 * head) * 0.125;
          }};
}

std::vector<ScoreCase> score_cases(const Sizes& s) {
  return {{"nothing"},
          softcap_case(2),
          softcap_case(30),
          alibi_case(s),
          bias_case(s),
          lambda_case(s),
          relative_bias_case(s, {}),
          relative_bias_case(s, {.count = 7, .max_distance = 20, .bidirectional = false})};
}

/// Returns the case of `first` followed by `second`.
ScoreCase both(const ScoreCase& first, const ScoreCase& second) {
  const auto part = [count = static_cast<int64_t>(first.tensors.size())](const Tensors& all, bool is_first) {
    return is_first ? Tensors(all.begin(), all.begin() + count) : Tensors(all.begin() + count, all.end());
  };
  ScoreCase joined{
      c10::str(first.name, ", ", second.name),
      [=](const Tensors& all) { return first.mod(part(all, true)).then(second.mod(part(all, false))); },
      [=](const torch::Tensor& scores, const Tensors& all) {
        return second.formula(first.formula(scores, part(all, true)), part(all, false));
      },
      first.tensors};
  joined.tensors.insert(joined.tensors.end(), second.tensors.begin(), second.tensors.end());
  return joined;
}

// ---- the tests

TEST_F(ScoreMods, WithEveryMaskInEveryDtypeAndBackend) {
  const Sizes sizes{2, 2, 1, 37, 211, 8, 5};
  for (const auto dtype : dtypes) {
    for (const auto& score : score_cases(sizes)) {
      for (const auto& mask : mask_cases(sizes)) {
        expect_accurate({sizes, score, mask}, dtype, {Backend::fused, Backend::reference},
                        c10::str(dtype, " ", score.name, ", ", mask.name));
      }
    }
  }
}

TEST_F(ScoreMods, InPairs) {
  const Sizes sizes{1, 2, 1, 19, 70, 8, 8};
  const MaskCase mask{"causal", causal(), key_positions(sizes) <= query_positions(sizes)};
  const auto cases = score_cases(sizes);
  for (const auto& first : cases) {
    for (const auto& second : cases) {
      const auto joined = both(first, second);
      expect_accurate({sizes, joined, mask}, torch::kFloat, {Backend::fused}, joined.name);
    }
  }
}

TEST_F(ScoreMods, LengthsAndHeadSizes) {
  const std::vector<std::pair<int64_t, int64_t>> lengths_and_sizes = {
      {1, 1},    {1, 256}, {7, 8},    {7, 128}, {63, 59},  {64, 64},
      {65, 111}, {65, 8},  {97, 128}, {97, 1},  {1025, 16}};
  for (const auto& [length, d] : lengths_and_sizes) {
    const int64_t heads = length > 1000 ? 1 : 2;
    const Sizes sizes{1, heads, heads, length, length, d, d};
    for (const auto& score : score_cases(sizes)) {
      expect_accurate({sizes, score}, torch::kFloat, {Backend::fused},
                      c10::str(score.name, " L ", length, " D ", d), length > 1000 ? 1 : 3);
    }
  }
}

TEST_F(ScoreMods, LargeScores) {
  const Sizes sizes{1, 2, 2, 65, 200, 16, 8};
  for (const auto dtype : dtypes) {
    for (const auto& score : score_cases(sizes)) {
      for (const auto& mod : {score, both(score, softcap_case(50))}) {
        // The largest scores are about 1e4.
        expect_accurate({sizes, mod, {}, 512}, dtype, {Backend::fused}, c10::str(dtype, " ", mod.name),
                        /*draws=*/9);
      }
    }
  }
}

/// A built-in mask or score modification, and a lambda that computes the same.
struct Repeated {
  std::string name;
  AttentionParams built_in, lambda;
};

std::vector<Repeated> repeated() {
  const std::vector<double> slopes = {0.5, 0.25, 0.125, 0.0625};
  return {{"alibi",
           {.score_mod = alibi(torch::tensor(slopes, torch::kFloat))},
           {.score_mod = score_mod([=](auto score, Position at) {
              return score - slopes[static_cast<size_t>(at.head)] * std::abs(at.query - at.key);
            })}},
          {"softcap", {.score_mod = softcap(3)}, {.score_mod = score_mod([](auto score, Position) {
                                                    return 3 * attend::tanh(score / 3);
                                                  })}},
          {"causal", {.mask = causal()}, {.mask = mask_mod([](Position at) { return at.key <= at.query; })}},
          {"window", {.mask = window(40, 9)}, {.mask = mask_mod([](Position at) {
                                                 return at.query - at.key <= 40 && at.key - at.query <= 9;
                                               })}}};
}

TEST_F(ScoreMods, LambdasRepeatTheBuiltIn) {
  for (const auto& sizes : {Sizes{2, 4, 2, 70, 411, 16, 8}, Sizes{1, 4, 4, 130, 90, 8, 8}}) {
    for (const auto& [name, built_in, lambda] : repeated()) {
      for (const auto dtype : dtypes) {
        const auto inputs = random_inputs(sizes, dtype);
        const auto results = [&](AttentionParams params) {
          const auto leaves = leaves_of(inputs, dtype);
          params.backend = Backend::fused;
          const auto [output, logsumexp] = attention_with_lse(leaves[0], leaves[1], leaves[2], params);
          return with_gradients(output, logsumexp, leaves);
        };
        const auto expected = results(built_in), got = results(lambda);
        for (size_t n = 0; n < got.size(); ++n) {
          const double largest = expected[n].masked_fill(expected[n].isinf(), 0).abs().max().item<double>();
          expect_close(got[n], expected[n], 8 * unit_roundoff(got[n].scalar_type()) * std::max(1.0, largest),
                       c10::str(dtype, " ", name, " result ", n));
        }
      }
    }
  }
}

TEST_F(ScoreMods, TilesThatALambdaHidesAreNotRead) {
  const Sizes sizes{1, 2, 1, 300, 2000, 8, 8};
  const auto inputs = leaves_of(random_inputs(sizes, torch::kFloat), torch::kFloat);
  for (size_t n : {1, 2}) inputs[n].detach().slice(2, 1500).fill_(NAN);
  const auto output = attention(inputs[0], inputs[1], inputs[2],
                                {.mask = mask_mod([](Position at) { return at.key < 900; })});
  output.sum().backward();
  const auto real = [&](size_t n) { return inputs[n].detach().slice(2, 0, 900); };
  expect_close(output, attention(inputs[0].detach(), real(1), real(2)), 1e-6);
  for (const auto& input : inputs) EXPECT_TRUE(input.grad().isfinite().all().item<bool>());
}

TEST_F(ScoreMods, InfiniteDerivativesOfHiddenScoresAreIgnored) {
  const Sizes sizes{1, 2, 2, 5, 9, 8, 8};
  auto hiding = torch::zeros({5, 9});
  hiding.select(1, 4).fill_(-INFINITY);
  auto allowed = torch::ones({5, 9}, torch::kBool);
  allowed.select(1, 4).fill_(false);
  allowed.select(0, 2).fill_(false);  // a fully masked row
  const auto twice = score_mod([](auto score, Position) { return 2 * score; });
  const auto half = score_mod([](auto score, Position) { return score / 2; });
  const auto grows_with_key = score_mod(
      [](auto score, Position at) { return exp(score + 30.0F * static_cast<float>(at.key - at.query)); });
  const auto logarithm = score_mod([](auto score, Position) { return log(abs(score)); });
  const std::vector<AttentionParams> cases = {{.score_mod = bias(hiding).then(twice)},
                                              {.score_mod = twice.then(bias(hiding)).then(half)},
                                              {.mask = causal(), .score_mod = grows_with_key},
                                              {.mask = dense(allowed), .score_mod = logarithm}};
  for (size_t n = 0; n < cases.size(); ++n) {
    const auto gradients = [&](Backend backend) {
      const auto inputs = leaves_of(random_inputs(sizes, torch::kFloat), torch::kFloat);
      inputs[1].detach().select(2, 4).zero_();
      auto params = cases[n];
      params.backend = backend;
      const auto output = attention(inputs[0], inputs[1], inputs[2], params);
      return torch::autograd::grad({output}, {inputs[0], inputs[1], inputs[2]}, {torch::ones_like(output)});
    };
    torch::manual_seed(0);
    const auto ours = gradients(Backend::fused);
    torch::manual_seed(0);
    const auto expected = gradients(Backend::reference);
    for (size_t input = 0; input < ours.size(); ++input) {
      SCOPED_TRACE(c10::str("case ", n, ", gradient ", input));
      EXPECT_TRUE(ours[input].isfinite().all().item<bool>());
      expect_close(ours[input], expected[input], 1e-5);
    }
  }
}

/// Compares the directional derivative of the gradient with central differences and with forward mode.
void expect_higher_derivatives(const Call& call, const Tensors& along) {
  const auto leaves = call.leaves(torch::kDouble);
  const auto attend = [&](const Tensors& all) {
    return attention(all[0], all[1], all[2],
                     {.mask = call.mask.mask,
                      .score_mod = call.score.mod(call.score_tensors(all)),
                      .sinks = call.sinks.defined() ? all.back() : torch::Tensor()})
        .sin()
        .sum();
  };
  const auto slope = [&] {
    const at::AutoGradMode grad_mode(true);
    const auto first = torch::autograd::grad({attend(leaves)}, leaves, {}, /*retain_graph=*/true,
                                             /*create_graph=*/true);
    auto total = torch::zeros({}, torch::kDouble);
    for (size_t n = 0; n < leaves.size(); ++n) total = total + (first[n] * along[n]).sum();
    return total;
  };
  expect_gradients(slope, leaves, 1e-6);

  const auto level = static_cast<int64_t>(torch::autograd::ForwardADLevel::get_next_idx());
  Tensors duals;
  for (size_t n = 0; n < leaves.size(); ++n) {
    duals.push_back(at::_make_dual(leaves[n].detach(), along[n], level));
  }
  const auto tangent = std::get<1>(at::_unpack_dual(attend(duals), level));
  torch::autograd::ForwardADLevel::release_idx(static_cast<uint64_t>(level));
  expect_close(tangent, slope(), 1e-12);
}

TEST_F(ScoreMods, LambdasHaveSecondDerivativesAndForwardMode) {
  const Sizes sizes{1, 2, 1, 3, 5, 4, 3};
  const MaskCase mask{"causal", mask_mod([](Position at) { return at.key <= at.query; })};
  expect_higher_derivatives({sizes, lambda_case(sizes), mask, {}, random_inputs(sizes, torch::kDouble)},
                            random_inputs(sizes, torch::kDouble));
}

/// Compares a function with that of the standard library over the whole range, to three units in the last
/// place.
template <typename T>
void expect_functions(const std::string& name, T (*ours)(T), double (*exact)(double), double least,
                      double most) {
  for (int step = 0; step <= 20000; ++step) {
    const auto x = static_cast<T>(least + (most - least) * (step / 20000.0));
    const double expected = exact(static_cast<double>(x));
    const T rounded = std::abs(static_cast<T>(expected));
    const auto unit =
        static_cast<double>(std::nextafter(rounded, std::numeric_limits<T>::infinity()) - rounded);
    ASSERT_LE(std::abs(static_cast<double>(ours(x)) - expected), 3 * unit) << name << " of " << x;
  }
  for (const T x : {T{0}, -T{0}, std::numeric_limits<T>::infinity(), -std::numeric_limits<T>::infinity()}) {
    const double expected = exact(static_cast<double>(x)), got = static_cast<double>(ours(x));
    EXPECT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected)))
        << name << " of " << x << ": " << got;
  }
  EXPECT_TRUE(std::isnan(ours(std::numeric_limits<T>::quiet_NaN()))) << name;
}

template <typename T>
void expect_functions_of() {
  const bool is_float = sizeof(T) == sizeof(float);
  const double most = is_float ? 88 : 709, least = is_float ? -110 : -750;
  expect_functions<T>("exp", attend::detail::exp<T>, std::exp, least, most);
  expect_functions<T>("exp", attend::detail::exp<T>, std::exp, -1e-3, 1e-3);
  expect_functions<T>("tanh", attend::detail::tanh<T>, std::tanh, -25, 25);
  expect_functions<T>("tanh", attend::detail::tanh<T>, std::tanh, -1e-3, 1e-3);
  expect_functions<T>("log", attend::detail::log<T>, std::log, 1e-6, 4);
  expect_functions<T>("log", attend::detail::log<T>, std::log, is_float ? 1e-44 : 1e-323,
                      is_float ? 3e-38 : 1e-307);
  expect_functions<T>("log", attend::detail::log<T>, std::log, 1, is_float ? 3e38 : 1e308);
  expect_functions<T>("abs", attend::detail::abs<T>, std::abs, -3, 3);
  EXPECT_EQ(attend::detail::exp(static_cast<T>(most + 2)), std::numeric_limits<T>::infinity());
  EXPECT_TRUE(std::isnan(attend::detail::log(T{-1})));
}

TEST_F(ScoreMods, FunctionsForLambdasAreAccurate) {
  expect_functions_of<float>();
  expect_functions_of<double>();
}

template <typename T>
concept HasFunctions = requires(T x) {
  attend::exp(x);
  attend::log(x);
  attend::tanh(x);
  attend::abs(x);
};

/// With `using namespace attend`, calls for plain numbers must resolve to <cmath> alone.
static_assert(HasFunctions<Dual<float>> && HasFunctions<Dual<Dual<double>>>);
static_assert(!HasFunctions<float> && !HasFunctions<double> && !HasFunctions<int>);

TEST_F(ScoreMods, PlainNumbersHaveTheFunctionsOfTheStandardLibrary) {
  EXPECT_EQ(program::decay(0.5), std::exp(-0.5) + std::tanh(1.0F) * std::log(1.25));
}

TEST_F(ScoreMods, DualNumbersCarryDerivatives) {
  using D = Dual<double>;
  const D x(0.7, 1.0);
  const auto derivative = [](const D& result) { return result.derivative; };
  EXPECT_DOUBLE_EQ(derivative(x * x / (1 + x)), 0.7 * 2.7 / (1.7 * 1.7));
  EXPECT_DOUBLE_EQ(derivative(3 - 2 * x), -2);
  EXPECT_DOUBLE_EQ(derivative(exp(-x)), -std::exp(-0.7));
  EXPECT_DOUBLE_EQ(derivative(log(x)), 1 / 0.7);
  EXPECT_DOUBLE_EQ(derivative(tanh(2 * x)), 2 / (std::cosh(1.4) * std::cosh(1.4)));
  EXPECT_EQ(derivative(abs(D(-2, 3))), -3);
  EXPECT_EQ(derivative(abs(D(0, 3))), 0);
  D sum = x;
  sum += 1;
  sum *= x;
  sum -= x;
  sum /= 2;
  EXPECT_DOUBLE_EQ(derivative(sum), 0.7);
  EXPECT_TRUE(x > 0 && x >= 0.7 && x < 1 && x <= 1 && x == 0.7 && x != 1);
  const Dual<D> y(x, D(1));  // the derivatives of x^3 are 3 x^2 and 6 x
  EXPECT_DOUBLE_EQ((y * y * y).derivative.value, 3 * 0.49);
  EXPECT_DOUBLE_EQ((y * y * y).derivative.derivative, 6 * 0.7);
}

/// Compares score modifications and masks that are composed from the left with those composed from the right.
TEST_F(ScoreMods, CompositionIsAssociative) {
  const Sizes sizes{2, 2, 1, 130, 211, 8, 5};
  const auto a = both(bias_case(sizes), softcap_case(2)), b = alibi_case(sizes);
  const auto c = both(lambda_case(sizes), relative_bias_case(sizes, {}));
  const auto left = both(both(a, b), c), right = both(a, both(b, c));
  const auto band = window(90, 20), lengths = key_lengths(torch::tensor({150, 211}));
  const auto dense_mask = dense(torch::rand({130, 211}) < 0.7), other = ~prefix(torch::tensor({3, 5}));
  const MaskCase left_mask{"left", ((band & lengths) & dense_mask) & other};
  const MaskCase right_mask{"right", band & (lengths & (dense_mask & other))};
  const auto inputs = random_inputs(sizes, torch::kFloat);
  const auto expected = Call{.sizes = sizes, .score = left, .mask = left_mask, .inputs = inputs}.attend(
      torch::kFloat, Backend::fused);
  const auto got = Call{.sizes = sizes, .score = right, .mask = right_mask, .inputs = inputs}.attend(
      torch::kFloat, Backend::fused);
  ASSERT_EQ(got.size(), expected.size());
  for (size_t n = 0; n < got.size(); ++n) EXPECT_TRUE(same_bits(got[n], expected[n])) << n;
}

TEST_F(ScoreMods, EmptySizes) {
  for (const auto& sizes :
       {Sizes{0, 2, 1, 3, 5, 4, 3}, Sizes{2, 2, 1, 0, 5, 4, 3}, Sizes{2, 2, 1, 3, 0, 4, 3}}) {
    for (const auto& score : score_cases(sizes)) {
      for (const auto& mask : mask_cases(sizes)) {
        for (const auto backend : {Backend::fused, Backend::reference}) {
          SCOPED_TRACE(c10::str(score.name, ", ", mask.name, ", ", sizes.batch, " x ", sizes.queries, " x ",
                                sizes.keys));
          const auto results = Call{sizes, score, mask, {}, random_inputs(sizes, torch::kFloat)}.attend(
              torch::kFloat, backend);
          EXPECT_EQ(results[0].sizes(), (std::vector<int64_t>{sizes.batch, 2, sizes.queries, 3}));
          EXPECT_TRUE(results[1].eq(-INFINITY).all().item<bool>());
          for (size_t n = 0; n < results.size(); ++n)
            EXPECT_TRUE(n == 1 || results[n].eq(0).all().item<bool>());
        }
      }
    }
  }
}

TEST_F(ScoreMods, KeysPastTheirLengthsAreNeverRead) {
  const Sizes sizes{2, 2, 1, 9, 250, 8, 8};
  for (const auto& score : score_cases(sizes)) {
    for (const auto backend : {Backend::fused, Backend::reference}) {
      auto inputs = random_inputs(sizes, torch::kFloat);
      for (size_t n : {1, 2}) inputs[n][0].slice(1, 230).fill_(NAN);
      for (size_t n : {1, 2}) inputs[n][1].fill_(INFINITY);
      const Call call{sizes, score, {"lengths", key_lengths(torch::tensor({230, 0}))}, {}, inputs};
      for (const auto& result : call.attend(torch::kFloat, backend)) {
        EXPECT_FALSE(result.isnan().any().item<bool>())
            << score.name << ", backend " << static_cast<int>(backend);
      }
    }
  }
}

bool all_same_bits(const Tensors& left, const Tensors& right) {
  return std::ranges::equal(left, right, [](const auto& a, const auto& b) { return same_bits(a, b); });
}

// ---- gradients that are not requested

TEST_F(ScoreMods, ConstantsHaveNoGradientAndChangeNoOther) {
  const Sizes sizes{2, 4, 2, 40, 130, 8, 5};
  ScoreCase all{"nothing"};
  for (const auto& score : {bias_case(sizes), alibi_case(sizes), relative_bias_case(sizes, {})})
    all = both(all, score);
  const Call call{.sizes = sizes, .score = all, .inputs = random_inputs(sizes, torch::kFloat)};
  const auto gradients_with = [&](const std::vector<size_t>& constants) {
    const auto leaves = call.leaves(torch::kFloat);
    for (const size_t n : constants) leaves[n].requires_grad_(false);
    attention(leaves[0], leaves[1], leaves[2], {.score_mod = all.mod(call.score_tensors(leaves))})
        .sum()
        .backward();
    Tensors gradients;
    for (const auto& leaf : leaves) gradients.push_back(leaf.grad());
    return gradients;
  };
  const auto expected = gradients_with({});
  for (const auto& constants : std::vector<std::vector<size_t>>{{3}, {4}, {5}, {3, 5}, {3, 4, 5}}) {
    const auto gradients = gradients_with(constants);
    for (size_t n = 0; n < gradients.size(); ++n) {
      if (std::ranges::find(constants, n) != constants.end()) {
        EXPECT_FALSE(gradients[n].defined()) << n;
      } else {
        EXPECT_TRUE(same_bits(gradients[n], expected[n])) << n;
      }
    }
  }
}

// ---- sinks

torch::Tensor some_sinks(int64_t heads) { return torch::linspace(-1, 2, heads, torch::kDouble); }

TEST_F(ScoreMods, SinksJoinTheDenominator) {
  const Sizes sizes{2, 4, 2, 37, 211, 8, 5};
  for (const auto dtype : dtypes) {
    for (const auto& score : {ScoreCase{"nothing"}, softcap_case(2), bias_case(sizes)}) {
      for (const auto& mask : mask_cases(sizes)) {
        expect_accurate({.sizes = sizes, .score = score, .mask = mask, .sinks = some_sinks(4)}, dtype,
                        {Backend::fused, Backend::reference},
                        c10::str(dtype, " sinks, ", score.name, ", ", mask.name));
      }
    }
  }
  const Sizes split_keys{1, 8, 2, 1, 3000, 16, 16};
  expect_accurate({.sizes = split_keys, .sinks = some_sinks(8)}, torch::kFloat, {Backend::fused},
                  "sinks, one query");
}

TEST_F(ScoreMods, SinksReduceTheWeights) {
  const Sizes sizes{2, 2, 1, 5, 7, 4, 3};
  const auto inputs = random_inputs(sizes, torch::kDouble);
  const AttentionParams params{.mask = causal(), .sinks = some_sinks(2)};
  const auto weights = attention_weights(inputs[0], inputs[1], params);
  const auto [output, logsumexp] = attention_with_lse(inputs[0], inputs[1], inputs[2], params);
  expect_close(output, torch::matmul(weights, inputs[2].repeat_interleave(2, 1)), 1e-14);
  expect_close(weights.sum(-1), 1 - (some_sinks(2).view({-1, 1}) - logsumexp).exp(), 1e-14);
  expect_close(attention(inputs[0][0][0], inputs[1][0][0], inputs[2][0][0],
                         {.mask = causal(), .sinks = some_sinks(2).slice(0, 0, 1)}),
               output[0][0], 1e-14, "two dimensions");
}

TEST_F(ScoreMods, SinksWithoutKeysOrWithoutASink) {
  const Sizes sizes{2, 2, 1, 3, 0, 4, 3};
  for (const auto backend : {Backend::fused, Backend::reference}) {
    const Call call{.sizes = sizes, .inputs = random_inputs(sizes, torch::kFloat), .sinks = some_sinks(2)};
    const auto results = call.attend(torch::kFloat, backend);
    EXPECT_EQ(results[0].abs().max().item<double>(), 0);
    expect_close(results[1], some_sinks(2).view({-1, 1}).expand({2, 2, 3}), 1e-7);
    // Only the logsumexp contributes to the gradient.
    expect_close(results.back(), torch::full({2}, 0.5 * 2 * 3), 1e-6);
    // A sink of -inf has no effect, not even on fully masked rows.
    const Sizes more{1, 2, 2, 5, 3, 4, 4};
    Call without{.sizes = more, .mask = {"causal", causal()}, .inputs = random_inputs(more, torch::kFloat)};
    const auto expected = without.attend(torch::kFloat, backend);
    without.sinks = torch::full({2}, -INFINITY, torch::kDouble);
    const auto got = without.attend(torch::kFloat, backend);
    for (size_t n = 0; n < expected.size(); ++n) expect_close(got[n], expected[n], 1e-6);
    EXPECT_EQ(got.back().abs().max().item<double>(), 0);
  }
}

TEST_F(ScoreMods, SinksDropTheSameWeightsInEveryBackend) {
  const Sizes sizes{2, 4, 2, 30, 70, 8, 5};
  const Call call{.sizes = sizes,
                  .inputs = random_inputs(sizes, torch::kDouble),
                  .sinks = some_sinks(4),
                  .dropout_p = 0.3};
  const auto fused = call.attend(torch::kDouble, Backend::fused);
  const auto reference = call.attend(torch::kDouble, Backend::reference);
  for (size_t n = 0; n < fused.size(); ++n) expect_close(fused[n], reference[n], 1e-12);
}

TEST_F(ScoreMods, SinksHaveSecondDerivativesAndForwardMode) {
  const Sizes sizes{1, 2, 1, 3, 5, 4, 3};
  auto along = random_inputs(sizes, torch::kDouble);
  along.push_back(torch::randn({2}, torch::kDouble));
  expect_higher_derivatives(
      Call{.sizes = sizes, .inputs = random_inputs(sizes, torch::kDouble), .sinks = some_sinks(2)}, along);
}

// ---- determinism

/// Returns a call with every score modification and most masks combined, with dropout and sinks.
Call everything(const Sizes& s) {
  ScoreCase joined{"nothing"};
  for (const auto& score : score_cases(s)) joined = both(joined, score);
  const MaskCase mask{"all", (causal() | prefix(torch::full({s.batch}, 30))) & window(150, -1) &
                                 mask_mod([](Position at) { return (at.query + at.key) % 5 != 0; })};
  return {s, joined, mask, {}, random_inputs(s, torch::kFloat), some_sinks(s.heads), 0.1};
}

TEST_F(ScoreMods, SameBitsForEveryThreadCountAndRun) {
  const int threads = at::get_num_threads();
  for (const auto& sizes : {Sizes{1, 1, 1, 200, 900, 8, 8}, Sizes{2, 4, 2, 70, 200, 8, 5}}) {
    const auto call = everything(sizes);
    at::set_num_threads(1);
    const auto first = call.attend(torch::kFloat, Backend::fused);
    for (const int count : {1, 2, 3, 5}) {
      at::set_num_threads(count);
      for (int repeat = 0; repeat < 13; ++repeat) {
        EXPECT_TRUE(all_same_bits(call.attend(torch::kFloat, Backend::fused), first)) << count << " threads";
      }
    }
  }
  at::set_num_threads(threads);
}

/// Expects the same bits of the last gradient for every number of threads.
void expect_same_bits_of_the_last_gradient(const Call& call) {
  const int threads = at::get_num_threads();
  Tensors first;
  for (const int count : {1, 2, 3, 5}) {
    at::set_num_threads(count);
    const auto now = call.attend(torch::kFloat, Backend::fused);
    if (first.empty()) first = now;
    EXPECT_TRUE(same_bits(now.back(), first.back())) << count << " threads";
  }
  at::set_num_threads(threads);
}

TEST_F(ScoreMods, SameBitsOfTheSlopesOfManyBatchElements) {
  const Sizes sizes{40000, 1, 1, 1, 3, 2, 2};
  const Call call{.sizes = sizes, .score = alibi_case(sizes), .inputs = random_inputs(sizes, torch::kFloat)};
  expect_same_bits_of_the_last_gradient(call);
}

TEST_F(ScoreMods, SameBitsOfASinkWithManyQueries) {
  const Sizes sizes{1, 1, 1, 70000, 4, 2, 2};
  const Call call{.sizes = sizes, .inputs = random_inputs(sizes, torch::kFloat), .sinks = some_sinks(1)};
  expect_same_bits_of_the_last_gradient(call);
}

TEST_F(ScoreMods, SameBitsFromConcurrentCallers) {
  auto call = everything({2, 4, 2, 70, 200, 8, 5});
  call.dropout_p = 0;  // the seed comes from a generator that the threads share
  const auto expected = call.attend(torch::kFloat, Backend::fused);
  std::vector<Tensors> results(8);
  std::vector<std::thread> callers;
  for (auto& result : results)
    callers.emplace_back([&] { result = call.attend(torch::kFloat, Backend::fused); });
  for (auto& caller : callers) caller.join();
  for (const auto& result : results) EXPECT_TRUE(all_same_bits(result, expected));
}

TEST_F(ScoreMods, OffsetsBeyondThirtyTwoBits) {
  // 2^32 elements, views of one row.
  const auto row = torch::randn({1, 1, 1, 16});
  const auto keys = row.expand({1, 1, int64_t{1} << 28, 16});
  const auto everywhere = torch::ones({1, 1, 1, 1}, torch::kBool).expand({1, 1, 2, int64_t{1} << 28});
  const auto zeros = torch::zeros({1, 1, 1, 1}).expand({1, 1, 2, int64_t{1} << 28});
  const auto output = attention(
      torch::randn({1, 1, 2, 16}), keys, keys,
      {.mask = window(300, 0) & dense(everywhere) & mask_mod([](Position at) { return at.key % 2 == 0; }),
       .score_mod = bias(zeros).then(alibi(torch::ones({1}))).then(score_mod([](auto score, Position at) {
         return at.key > (1 << 28) - 400 ? score : 0 * score - INFINITY;
       }))});
  expect_close(output, row.expand({1, 1, 2, 16}), 1e-5);
}

}  // namespace
}  // namespace attend::testing
