// Score modifications and masks, alone and in pairs, in every backend: against their formulas in plain ATen
// operations in float64, and as accurate as those are in the same dtype.
#include <attend/attention.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "support.h"

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

/// A mask, and which scores it lets count; undefined for all.
struct MaskCase {
  std::string name;
  Mask mask = {};
  torch::Tensor allowed = {};
};

/// Positions of the queries among the keys, as a column, and of the keys, as a row.
torch::Tensor query_positions(const Sizes& s) {
  return torch::arange(s.queries).view({-1, 1}) + (s.keys - s.queries);
}
torch::Tensor key_positions(const Sizes& s) { return torch::arange(s.keys).view({1, -1}); }

Tensors leaves_of(const Tensors& tensors, torch::ScalarType dtype) {
  Tensors leaves;
  for (const auto& tensor : tensors) leaves.push_back(tensor.detach().to(dtype).clone().requires_grad_());
  return leaves;
}

/// Query, key and value of the dtype, as float64.
Tensors random_inputs(const Sizes& s, torch::ScalarType dtype) {
  const auto make = [&](at::IntArrayRef sizes) {
    return torch::randn(sizes, torch::kDouble).to(dtype).to(torch::kDouble);
  };
  return {make({s.batch, s.heads, s.queries, s.d}), make({s.batch, s.kv_heads, s.keys, s.d}),
          make({s.batch, s.kv_heads, s.keys, s.d_v})};
}

/// Output, logsumexp, and the gradients of a fixed function of both.
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
  Tensors inputs = {};  ///< query, key and value

  Tensors leaves(torch::ScalarType dtype) const {
    auto all = leaves_of(inputs, dtype);
    for (auto& tensor : leaves_of(score.tensors, dtype)) all.push_back(tensor);
    return all;
  }

  Tensors attend(torch::ScalarType dtype, Backend backend) const {
    const auto all = leaves(dtype);
    const auto [output, logsumexp] = attention_with_lse(all[0], all[1], all[2],
                                                        {.mask = mask.mask,
                                                         .score_mod = score.mod({all.begin() + 3, all.end()}),
                                                         .scale = scale,
                                                         .backend = backend});
    return with_gradients(output, logsumexp, all);
  }

  /// softmax(mask(formula(scale Q K^T))) V, operation by operation.
  Tensors plain(torch::ScalarType dtype) const {
    const auto all = leaves(dtype);
    const int64_t group = all[0].size(1) / all[1].size(1);
    const auto key = all[1].repeat_interleave(group, 1), value = all[2].repeat_interleave(group, 1);
    auto scores = torch::matmul(all[0], key.transpose(-2, -1)) *
                  (scale ? *scale : 1 / std::sqrt(static_cast<double>(sizes.d)));
    scores = score.formula(scores, {all.begin() + 3, all.end()});
    if (mask.allowed.defined()) scores = scores.masked_fill(~mask.allowed, -INFINITY);
    const auto blind = scores.detach().eq(-INFINITY).all(-1, /*keepdim=*/true);
    const auto seen = scores.masked_fill(blind, 0);
    const auto weights = torch::softmax(seen, -1).masked_fill(blind, 0);
    const auto logsumexp = torch::logsumexp(seen, -1).masked_fill(blind.squeeze(-1), -INFINITY);
    return with_gradients(torch::matmul(weights, value), logsumexp, all);
  }
};

/// The largest error of each result. Half types are compared with plain code in float32 whose results are
/// rounded: a stricter measure than plain code in half. In float64 the error is that in float32, scaled;
/// twice, for the oracle has one, too.
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

/// At most twice the error of plain code, three times for gradients; in the median of some draws of the
/// inputs: the largest error of one is a matter of luck, the more so the larger the scores.
void expect_accurate(Call call, torch::ScalarType dtype, const std::vector<Backend>& backends,
                     const std::string& what, int draws = 3) {
  struct Errors {
    std::vector<double> ours, allowed;
  };
  std::map<Backend, std::vector<Errors>> errors;
  for (int draw = 0; draw < draws; ++draw) {
    call.inputs = random_inputs(call.sizes, dtype);
    const auto exact = call.plain(torch::kDouble);
    const auto plain = plain_errors(call.plain(torch::kFloat), exact, dtype);
    for (const auto backend : backends) {
      const auto ours = call.attend(dtype, backend);
      auto& of_backend = errors[backend];
      of_backend.resize(ours.size());
      for (size_t n = 0; n < ours.size(); ++n) {
        const auto finite = exact[n].masked_fill(exact[n].isinf(), 0);
        const double largest = std::max(1.0, finite.abs().max().item<double>());
        of_backend[n].ours.push_back(max_difference(ours[n], exact[n]));
        of_backend[n].allowed.push_back((n < 2 ? 2 : 3) * plain[n] +
                                        4 * unit_roundoff(ours[n].scalar_type()) * largest);
      }
    }
  }
  for (const auto& [backend, results] : errors) {
    for (size_t n = 0; n < results.size(); ++n) {
      EXPECT_LE(median(results[n].ours), median(results[n].allowed))
          << what << ", result " << n << ", backend " << static_cast<int>(backend);
    }
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
          {"dense", dense(random), random}};
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

std::vector<ScoreCase> score_cases(const Sizes& s) {
  return {{"nothing"}, softcap_case(2), softcap_case(30), alibi_case(s), bias_case(s)};
}

/// One after the other.
ScoreCase both(const ScoreCase& first, const ScoreCase& second) {
  const auto part = [count = static_cast<int64_t>(first.tensors.size())](const Tensors& all, bool of_first) {
    return of_first ? Tensors(all.begin(), all.begin() + count) : Tensors(all.begin() + count, all.end());
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
  const Sizes sizes{2, 4, 2, 37, 211, 8, 5};
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
    const Sizes sizes{1, 2, 2, length, length, d, d};
    for (const auto& score : score_cases(sizes)) {
      expect_accurate({sizes, score}, torch::kFloat, {Backend::fused},
                      c10::str(score.name, " L ", length, " D ", d));
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

}  // namespace
}  // namespace attend::testing
