// Tests every behaviour that attention.h, mask.h and score_mod.h document, against loops that compute the
// formulas of the papers, against ATen, and against central differences.
#include <ATen/Parallel.h>
#include <attend/attention.h>
#include <torch/csrc/autograd/forward_grad.h>

#include <numeric>

#include "naive_attention.h"
#include "support.h"

namespace attend::testing {
namespace {

torch::Tensor random(at::IntArrayRef sizes, torch::ScalarType dtype = torch::kDouble) {
  return torch::randn(sizes, torch::kDouble).to(dtype);
}

struct Inputs {
  torch::Tensor query, key, value;
};

Inputs random_inputs(int64_t batch, int64_t heads, int64_t kv_heads, int64_t queries, int64_t keys, int64_t d,
                     int64_t d_v, torch::ScalarType dtype = torch::kDouble) {
  return {random({batch, heads, queries, d}, dtype), random({batch, kv_heads, keys, d}, dtype),
          random({batch, kv_heads, keys, d_v}, dtype)};
}

/// Compares output, logsumexp and weights with those of `naive`.
void expect_naive(const Inputs& in, const AttentionParams& params, NaiveAttention naive,
                  const std::string& what) {
  naive.scale = params.scale.value_or(1 / std::sqrt(static_cast<double>(in.query.size(-1))));
  naive.weighting = params.weighting;
  const auto expected = naive(in.query, in.key, in.value);
  for (const auto backend : {Backend::automatic, Backend::fused, Backend::reference}) {
    auto with_backend = params;
    with_backend.backend = backend;
    expect_close(attention(in.query, in.key, in.value, with_backend), expected.output, 1e-12,
                 what + ": output");
  }
  expect_close(attention_weights(in.query, in.key, params), expected.weights, 1e-12, what + ": weights");
  if (params.weighting != Weighting::softmax) return;
  const auto [output, logsumexp] = attention_with_lse(in.query, in.key, in.value, params);
  expect_close(output, expected.output, 1e-12, what + ": output beside the logsumexp");
  const double largest =
      expected.logsumexp.masked_fill(expected.logsumexp.isinf(), 0).abs().sum().item<double>();
  expect_close(logsumexp, expected.logsumexp, 1e-12 * std::max(1.0, largest), what + ": logsumexp");
}

/// Returns a mask, given as a function, as a tensor of ones and zeros for a dense mask.
torch::Tensor written_out(const std::function<bool(int64_t, int64_t, int64_t, int64_t)>& allowed,
                          at::IntArrayRef sizes) {
  auto mask = torch::zeros(sizes, torch::kBool);
  auto entries = mask.accessor<bool, 4>();
  for (int64_t b = 0; b < sizes[0]; ++b) {
    for (int64_t h = 0; h < sizes[1]; ++h) {
      for (int64_t i = 0; i < sizes[2]; ++i) {
        for (int64_t j = 0; j < sizes[3]; ++j) entries[b][h][i][j] = allowed(b, h, i, j);
      }
    }
  }
  return mask;
}

class Attention : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

// ---- layout and sizes

TEST_F(Attention, SizesAgreeWithTheFormula) {
  const std::vector<std::array<int64_t, 7>> sizes = {
      // B, H, Hkv, Lq, Lk, D, Dv
      {1, 1, 1, 1, 1, 1, 1},   {2, 3, 3, 5, 7, 4, 6},      {2, 4, 2, 7, 5, 8, 3}, {1, 6, 1, 3, 9, 5, 5},
      {1, 2, 1, 63, 65, 8, 8}, {1, 1, 1, 97, 64, 59, 111}, {0, 2, 2, 3, 4, 5, 6}, {2, 0, 0, 3, 4, 5, 6},
      {2, 2, 1, 0, 4, 5, 6},   {2, 2, 1, 3, 0, 5, 6},      {2, 2, 1, 3, 4, 5, 0}, {1, 2, 2, 0, 0, 5, 6},
  };
  for (const auto& [b, h, h_kv, l_q, l_k, d, d_v] : sizes) {
    expect_naive(random_inputs(b, h, h_kv, l_q, l_k, d, d_v), {}, {},
                 c10::str("B ", b, " H ", h, "/", h_kv, " L ", l_q, "/", l_k, " D ", d, "/", d_v));
  }
}

TEST_F(Attention, TwoAndThreeDimensionsMeanOneHead) {
  const auto in = random_inputs(2, 1, 1, 5, 7, 4, 6);
  const auto expected = attention_with_lse(in.query, in.key, in.value, {.mask = causal()});
  const auto batch = attention_with_lse(in.query.select(1, 0), in.key.select(1, 0), in.value.select(1, 0),
                                        {.mask = causal()});
  EXPECT_TRUE(same_bits(batch.output, expected.output.select(1, 0)));
  EXPECT_TRUE(same_bits(batch.logsumexp, expected.logsumexp.select(1, 0)));
  const auto single = attention_with_lse(in.query[1][0], in.key[1][0], in.value[1][0], {.mask = causal()});
  expect_close(single.output, expected.output[1][0], 1e-14);
  expect_close(single.logsumexp, expected.logsumexp[1][0], 1e-14);
  EXPECT_EQ(attention_weights(in.query[1][0], in.key[1][0]).sizes(), (std::vector<int64_t>{5, 7}));
}

TEST_F(Attention, AnyStrides) {
  const Inputs in{random({2, 5, 3, 4}).transpose(1, 2), random({4, 1, 2, 7}).permute({2, 1, 3, 0}),
                  random({2, 1, 1, 6}).expand({2, 3, 7, 6})};
  const Inputs copies{in.query.contiguous(), in.key.expand({2, 3, 7, 4}).contiguous(), in.value.contiguous()};
  ASSERT_FALSE(in.query.is_contiguous());
  expect_close(attention(in.query, in.key.expand({2, 3, 7, 4}), in.value),
               attention(copies.query, copies.key, copies.value), 1e-14);
}

TEST_F(Attention, HeadsOfAGroupShareKeys) {
  const auto in = random_inputs(2, 6, 2, 5, 7, 4, 3);
  const auto repeated = attention(in.query, in.key.repeat_interleave(3, 1), in.value.repeat_interleave(3, 1));
  expect_close(attention(in.query, in.key, in.value), repeated, 1e-14);
}

// ---- scale, masks, score modifications, weightings

TEST_F(Attention, ScaleMultipliesTheScores) {
  const auto in = random_inputs(1, 2, 2, 5, 7, 4, 3);
  expect_naive(in, {}, {}, "default");
  expect_naive(in, {.scale = 0.3}, {}, "0.3");
  expect_naive(in, {.scale = -2.0}, {}, "-2");
  expect_naive(in, {.scale = 0.0}, {}, "0");
}

TEST_F(Attention, BooleanMaskAgreesWithATen) {
  const auto in = random_inputs(2, 3, 3, 5, 7, 4, 6);
  for (const auto& sizes : std::vector<std::vector<int64_t>>{
           {2, 3, 5, 7}, {2, 1, 5, 7}, {1, 3, 1, 7}, {5, 7}, {3, 5, 7}, {7}, {2, 1, 1, 7}, {1, 1}}) {
    auto mask = torch::rand(sizes) < 0.6;
    mask.select(-1, 0).fill_(true);
    const auto expected =
        at::scaled_dot_product_attention(in.query, in.key, in.value, mask.expand({2, 3, 5, 7}));
    expect_close(attention(in.query, in.key, in.value, {.mask = mask}), expected, 1e-13,
                 c10::str(mask.sizes()));
  }
}

TEST_F(Attention, MaskOfThreeDimensionsFollowsTheQuery) {
  const auto in = random_inputs(2, 1, 1, 5, 7, 4, 6);
  const auto mask = torch::rand({2, 5, 7}) < 0.5;
  const auto expected = attention(in.query, in.key, in.value, {.mask = mask.unsqueeze(1)});
  const auto got =
      attention(in.query.select(1, 0), in.key.select(1, 0), in.value.select(1, 0), {.mask = mask});
  expect_close(got, expected.select(1, 0), 1e-14);
}

TEST_F(Attention, CausalIsBottomRight) {
  for (const auto& [l_q, l_k] :
       std::vector<std::pair<int64_t, int64_t>>{{5, 5}, {3, 7}, {7, 3}, {1, 6}, {6, 1}}) {
    const int64_t offset = l_k - l_q;
    const NaiveAttention naive{.allowed = [=](auto, auto, auto i, auto j) { return j <= i + offset; }};
    expect_naive(random_inputs(2, 2, 1, l_q, l_k, 4, 3), {.mask = causal()}, naive, c10::str(l_q, "/", l_k));
  }
}

TEST_F(Attention, CausalTopLeftAgreesWithATen) {
  const auto in = random_inputs(2, 2, 2, 5, 7, 4, 3);
  const auto expected =
      at::scaled_dot_product_attention(in.query, in.key, in.value, {}, 0.0, /*is_causal=*/true);
  expect_close(attention(in.query, in.key, in.value, {.mask = causal(Corner::top_left)}), expected, 1e-13);
}

TEST_F(Attention, WindowFollowsTheQuerysPosition) {
  for (const auto& [left, right] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 0}, {2, 0}, {0, 2}, {1, 3}, {-1, 0}, {0, -1}, {-1, -1}, {100, 100}}) {
    for (const auto& [l_q, l_k] : std::vector<std::pair<int64_t, int64_t>>{{6, 6}, {3, 8}, {8, 3}}) {
      const int64_t offset = l_k - l_q;
      const NaiveAttention naive{.allowed = [=](auto, auto, int64_t i, int64_t j) {
        return (left < 0 || j >= i + offset - left) && (right < 0 || j <= i + offset + right);
      }};
      expect_naive(random_inputs(1, 2, 2, l_q, l_k, 4, 3), {.mask = window(left, right)}, naive,
                   c10::str(left, ",", right, " L ", l_q, "/", l_k));
    }
  }
}

TEST_F(Attention, APrefixIsVisibleToEveryQuery) {
  const std::vector<int64_t> lengths = {0, 3, 7};
  const NaiveAttention naive{.allowed = [=](auto b, auto, auto i, auto j) {
    return j <= i + 2 || j < lengths[static_cast<size_t>(b)];
  }};
  expect_naive(random_inputs(3, 2, 2, 5, 7, 4, 3), {.mask = causal() | prefix(torch::tensor(lengths))}, naive,
               "prefix");
}

TEST_F(Attention, DocumentsDoNotAttendToEachOther) {
  const std::vector<std::vector<int64_t>> numbers = {{0, 0, 1, 1, 1, 2, 2}, {5, 3, 3, 5, 5, 5, 9}};
  const auto tensor = torch::tensor({0, 0, 1, 1, 1, 2, 2, 5, 3, 3, 5, 5, 5, 9}, torch::kInt).view({2, 7});
  for (const int64_t queries : {7, 4, 9}) {
    const int64_t offset = 7 - queries;
    const auto same = [=](auto b, auto, int64_t i, int64_t j) {
      const auto& of_batch = numbers[static_cast<size_t>(b)];
      return i + offset >= 0 && of_batch[static_cast<size_t>(i + offset)] == of_batch[static_cast<size_t>(j)];
    };
    const auto in = random_inputs(2, 2, 1, queries, 7, 4, 3);
    expect_naive(in, {.mask = documents(tensor)}, {.allowed = same}, c10::str(queries, " queries"));
    expect_naive(
        in, {.mask = documents(tensor) & causal()},
        {.allowed = [=](auto b, auto h, auto i, auto j) { return same(b, h, i, j) && j <= i + offset; }},
        c10::str(queries, " queries, causal"));
  }
  const auto none = torch::zeros({0, 2, 7, 4});
  for (const auto& of_none : {tensor.slice(0, 0, 0), tensor[0]}) {
    const auto output =
        attention(none, none, none, {.mask = documents(of_none), .backend = Backend::reference});
    EXPECT_EQ(output.sizes(), none.sizes());
  }
}

TEST_F(Attention, MasksCombine) {
  const auto in = random_inputs(2, 2, 1, 6, 6, 4, 3);
  const std::vector<int64_t> lengths = {4, 6};
  const auto near = [](auto, auto, auto i, auto j) { return std::abs(i - j) <= 1; };
  const auto past = [](auto, auto, auto i, auto j) { return j <= i; };
  const auto real = [=](auto b, auto, auto, auto j) { return j < lengths[static_cast<size_t>(b)]; };
  const auto mask_real = key_lengths(torch::tensor(lengths));
  using A = NaiveAttention;
  expect_naive(in, {.mask = causal() & window(1, 1)},
               A{.allowed = [=](auto... at) { return past(at...) && near(at...); }}, "and");
  expect_naive(in, {.mask = causal() | window(1, 1)},
               A{.allowed = [=](auto... at) { return past(at...) || near(at...); }}, "or");
  expect_naive(in, {.mask = ~causal()}, A{.allowed = [=](auto... at) { return !past(at...); }}, "not");
  expect_naive(in, {.mask = (causal() | window(1, 1)) & mask_real},
               A{.allowed = [=](auto... at) { return (past(at...) || near(at...)) && real(at...); }},
               "lengths");
  expect_naive(in, {.mask = ~(causal() & mask_real)},
               A{.allowed = [=](auto... at) { return !(past(at...) && real(at...)); }}, "not and");
  expect_naive(in, {.mask = dense(written_out(near, {1, 1, 6, 6})) & mask_real},
               A{.allowed = [=](auto... at) { return near(at...) && real(at...); }}, "dense");
}

TEST_F(Attention, TheDefaultMaskHidesNothing) {
  const auto in = random_inputs(1, 2, 2, 4, 5, 4, 3);
  EXPECT_FALSE(Mask().defined());
  EXPECT_FALSE(Mask(torch::Tensor()).defined());
  EXPECT_FALSE((Mask() | causal()).defined());
  expect_naive(in, {.mask = Mask() & Mask()}, {}, "and");
  expect_naive(in, {.mask = ~~Mask()}, {}, "not not");
  expect_naive(in, {.mask = ~Mask()}, NaiveAttention{.allowed = [](auto...) { return false; }}, "not");
}

TEST_F(Attention, KeysPastTheLengthsAreNeverRead) {
  auto in = random_inputs(3, 2, 1, 4, 6, 4, 3);
  const auto lengths = torch::tensor({6, 2, 0}, torch::kInt);
  const auto clean = attention(in.query, in.key, in.value, {.mask = key_lengths(lengths)});
  for (const auto& tensor : {in.key, in.value}) {
    tensor[1].slice(1, 2).fill_(NAN);
    tensor[2].fill_(INFINITY);
  }
  for (auto* tensor : {&in.query, &in.key, &in.value}) tensor->requires_grad_();
  const auto output = attention(in.query, in.key, in.value, {.mask = causal() & key_lengths(lengths)});
  EXPECT_TRUE(output.isfinite().all().item<bool>());
  expect_close(attention(in.query, in.key, in.value, {.mask = key_lengths(lengths)}), clean, 0);
  output.sum().backward();
  EXPECT_TRUE(in.query.grad().isfinite().all().item<bool>());
  for (const auto& tensor : {in.key, in.value}) {
    EXPECT_TRUE(tensor.grad().isfinite().all().item<bool>());
    EXPECT_EQ(tensor.grad()[1].slice(1, 2).abs().max().item<double>(), 0);
    EXPECT_EQ(tensor.grad()[2].abs().max().item<double>(), 0);
  }
}

TEST_F(Attention, AFullyMaskedRowIsZero) {
  for (const auto weighting : {Weighting::softmax, Weighting::sigmoid, Weighting::relu}) {
    for (const bool by_bias : {false, true}) {
      auto in = random_inputs(1, 1, 1, 3, 4, 4, 3);
      for (auto* tensor : {&in.query, &in.key, &in.value}) tensor->requires_grad_();
      auto mask = torch::ones({3, 4}, torch::kBool);
      mask[1].fill_(false);
      auto values = torch::zeros({3, 4}, torch::kDouble).masked_fill(~mask, -INFINITY).requires_grad_();
      const AttentionParams params{.mask = by_bias ? Mask() : Mask(mask),
                                   .score_mod = by_bias ? bias(values) : ScoreMod(),
                                   .weighting = weighting};
      const auto output = attention(in.query, in.key, in.value, params);
      EXPECT_EQ(output[0][0][1].abs().max().item<double>(), 0);
      EXPECT_GT(output[0][0][0].abs().max().item<double>(), 0);
      output.sum().backward();
      EXPECT_EQ(in.query.grad()[0][0][1].abs().max().item<double>(), 0);
      for (const auto& tensor : {in.query, in.key, in.value})
        EXPECT_TRUE(tensor.grad().isfinite().all().item<bool>());
      EXPECT_TRUE(!by_bias || values.grad().isfinite().all().item<bool>());
      if (weighting != Weighting::softmax) continue;
      const auto logsumexp = attention_with_lse(in.query, in.key, in.value, params).logsumexp;
      EXPECT_EQ(logsumexp[0][0][1].item<double>(), -INFINITY);
      EXPECT_TRUE(logsumexp[0][0][0].isfinite().item<bool>());
    }
  }
}

TEST_F(Attention, BiasIsAddedAfterScalingAndBeforeTheMask) {
  const auto in = random_inputs(2, 3, 3, 5, 7, 4, 6);
  const auto values = random({2, 3, 5, 7});
  const auto entries = values.accessor<double, 4>();
  expect_naive(in, {.mask = causal(), .score_mod = bias(values), .scale = 0.7},
               {.allowed = [](auto, auto, auto i, auto j) { return j <= i + 2; },
                .score_mod = [=](auto s, auto b, auto h, auto i, auto j) { return s + entries[b][h][i][j]; }},
               "bias");
  const auto expected = at::scaled_dot_product_attention(in.query, in.key, in.value, values[0][0]);
  expect_close(attention(in.query, in.key, in.value, {.score_mod = bias(values[0][0])}), expected, 1e-13);
}

TEST_F(Attention, AlibiSubtractsTheDistance) {
  const auto in = random_inputs(2, 3, 3, 5, 7, 4, 6);
  const auto slopes = random({2, 3}).abs();
  const auto entries = slopes.accessor<double, 2>();
  const auto mod = [=](double s, auto b, auto h, int64_t i, int64_t j) {
    return s - entries[b][h] * static_cast<double>(std::abs(i + 2 - j));
  };
  expect_naive(in, {.mask = causal(), .score_mod = alibi(slopes)},
               {.allowed = [](auto, auto, auto i, auto j) { return j <= i + 2; }, .score_mod = mod}, "alibi");
  const auto values = random({5, 7});
  const auto added = values.accessor<double, 2>();
  expect_naive(in, {.score_mod = bias(values).then(alibi(slopes))},
               {.score_mod = [=](double s, auto b, auto h, auto i,
                                 auto j) { return mod(s + added[i][j], b, h, i, j); }},
               "bias, then alibi");
}

TEST_F(Attention, GradientsOfSlopesAgreeWithCentralDifferences) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{{4}, {2, 4}}) {
    auto in = random_inputs(2, 4, 2, 3, 5, 3, 2);
    auto slopes = random(shape), values = random({3, 5});
    for (auto* tensor : {&in.query, &in.key, &in.value, &slopes, &values}) tensor->requires_grad_();
    const auto direction = random({2, 4, 3, 2});
    for (const auto& mod : {alibi(slopes).then(bias(values)), bias(values).then(alibi(slopes))}) {
      const auto loss = [&] {
        return (attention(in.query, in.key, in.value, {.mask = causal(), .score_mod = mod}) * direction)
            .sum();
      };
      for (auto* tensor : {&in.query, &in.key, &in.value, &slopes, &values})
        tensor->mutable_grad() = torch::Tensor();
      expect_gradients(loss, {in.query, in.key, in.value, slopes, values});
    }
  }
}

TEST_F(Attention, SigmoidAndReluAreElementwise) {
  const auto in = random_inputs(2, 2, 1, 5, 7, 4, 6);
  const NaiveAttention naive{.allowed = [](auto, auto, auto i, auto j) { return j <= i + 2; }};
  expect_naive(in, {.mask = causal(), .weighting = Weighting::sigmoid}, naive, "sigmoid");
  expect_naive(in, {.mask = causal(), .weighting = Weighting::relu}, naive, "relu");
}

TEST_F(Attention, LargeScoresStayFinite) {
  const auto in = random_inputs(1, 2, 2, 5, 7, 4, 3);
  expect_naive(in, {.scale = 1e4}, {}, "1e4");
}

// ---- dropout

/// Returns the dropout factors: with equal scores and the identity as value, each output is a factor divided
/// by Lk.
torch::Tensor factors(int64_t batch, int64_t heads, int64_t queries, int64_t keys, double p) {
  const auto zeros = torch::zeros({batch, heads, queries, 1}, torch::kDouble);
  const auto value = torch::eye(keys, torch::kDouble).expand({batch, heads, keys, keys});
  return attention(zeros, torch::zeros({batch, heads, keys, 1}, torch::kDouble), value, {.dropout_p = p}) *
         static_cast<double>(keys);
}

TEST_F(Attention, DropoutKeepsTheExpectedShareAndScalesIt) {
  for (const double p : {0.1, 0.5, 0.9}) {
    const auto factor = factors(2, 3, 50, 100, p);
    const auto kept = factor > 0;
    const double rounded = std::round(p * 65536) / 65536;
    const auto scaled = factor.masked_select(kept);
    expect_close(scaled, torch::full_like(scaled, 1 / (1 - rounded)), 1e-13);
    const double deviation = std::sqrt(p * (1 - p) / static_cast<double>(factor.numel()));
    EXPECT_NEAR(kept.to(torch::kDouble).mean().item<double>(), 1 - p, 5 * deviation);
  }
  for (const double p : {1.0, 1 - 1e-6}) EXPECT_EQ(factors(1, 1, 5, 5, p).abs().max().item<double>(), 0);
}

TEST_F(Attention, DropoutThatRoundsToZeroHasNoEffect) {
  for (const auto dtype : {torch::kDouble, torch::kFloat}) {
    const auto in = random_inputs(2, 2, 1, 5, 7, 4, 3, dtype);
    for (const auto backend : {Backend::fused, Backend::reference}) {
      const auto output = [&](double p) {
        return attention(in.query, in.key, in.value, {.dropout_p = p, .backend = backend});
      };
      EXPECT_TRUE(same_bits(output(7e-6), output(0)));
    }
  }
}

TEST_F(Attention, DropoutDependsOnSeedAndPositionAlone) {
  torch::manual_seed(3);
  const auto whole = factors(2, 3, 8, 130, 0.5);
  torch::manual_seed(3);
  const auto part = factors(1, 2, 5, 70, 0.5);
  expect_close(part, whole.slice(0, 0, 1).slice(1, 0, 2).slice(2, 0, 5).slice(3, 0, 70), 1e-12);
  EXPECT_GT(max_difference(factors(1, 2, 5, 70, 0.5), part), 1) << "the next call draws another seed";
}

TEST_F(Attention, DropoutZeroDrawsNothing) {
  const auto in = random_inputs(1, 1, 1, 2, 2, 2, 2);
  torch::manual_seed(5);
  const auto expected = torch::rand({3});
  torch::manual_seed(5);
  attention(in.query, in.key, in.value, {.dropout_p = 0});
  EXPECT_TRUE(same_bits(torch::rand({3}), expected));
}

// ---- derivatives

struct GradientCase {
  std::string name;
  AttentionParams params;
};

std::vector<GradientCase> gradient_cases() {
  return {{"plain", {}},
          {"causal", {.mask = causal()}},
          {"window", {.mask = window(1, 2), .scale = 0.3}},
          {"key_lengths", {.mask = key_lengths(torch::tensor({4, 0}))}},
          {"sigmoid", {.mask = causal(), .weighting = Weighting::sigmoid}},
          {"relu", {.mask = causal(), .weighting = Weighting::relu}},
          {"dropout", {.mask = causal(), .dropout_p = 0.4}}};
}

TEST_F(Attention, GradientsAgreeWithCentralDifferences) {
  for (auto [name, params] : gradient_cases()) {
    SCOPED_TRACE(name);
    auto in = random_inputs(2, 2, 1, 3, 4, 3, 2);
    auto values = random({2, 1, 3, 4});
    for (auto* tensor : {&in.query, &in.key, &in.value, &values}) tensor->requires_grad_();
    params.score_mod = bias(values);
    const auto direction = random({2, 2, 3, 2});
    const auto loss = [&] {
      torch::manual_seed(1);
      return (attention(in.query, in.key, in.value, params) * direction).sum();
    };
    expect_gradients(loss, {in.query, in.key, in.value, values});
  }
}

TEST_F(Attention, LogsumexpHasGradients) {
  auto in = random_inputs(2, 2, 1, 3, 4, 3, 2);
  for (auto* tensor : {&in.query, &in.key, &in.value}) tensor->requires_grad_();
  const auto direction = random({2, 2, 3});
  const auto loss = [&] {
    const auto [output, logsumexp] = attention_with_lse(in.query, in.key, in.value, {.mask = causal()});
    return (logsumexp * direction).sum() + output.sum();
  };
  expect_gradients(loss, {in.query, in.key, in.value});
}

TEST_F(Attention, SecondDerivativesAgreeWithCentralDifferences) {
  auto in = random_inputs(1, 2, 1, 3, 4, 3, 2);
  for (auto* tensor : {&in.query, &in.key, &in.value}) tensor->requires_grad_();
  const auto directions = random_inputs(1, 2, 1, 3, 4, 3, 2);
  const auto loss = [&] {
    const at::AutoGradMode grad_mode(true);
    const auto output = attention(in.query, in.key, in.value, {.mask = causal()});
    const auto first = torch::autograd::grad({output.sin().sum()}, {in.query, in.key, in.value}, {},
                                             /*retain_graph=*/true, /*create_graph=*/true);
    return (first[0] * directions.query).sum() + (first[1] * directions.key).sum() +
           (first[2] * directions.value).sum();
  };
  expect_gradients(loss, {in.query, in.key, in.value}, 1e-6);
}

TEST_F(Attention, ForwardModeAgreesWithCentralDifferences) {
  const auto in = random_inputs(1, 2, 1, 3, 4, 3, 2);
  const auto along = random_inputs(1, 2, 1, 3, 4, 3, 2);
  const auto at_step = [&](double step) {
    return attention(in.query + step * along.query, in.key + step * along.key, in.value + step * along.value,
                     {.mask = causal()});
  };
  const auto expected = (at_step(1e-6) - at_step(-1e-6)) / 2e-6;
  const auto level = static_cast<int64_t>(torch::autograd::ForwardADLevel::get_next_idx());
  const auto dual =
      attention(at::_make_dual(in.query, along.query, level), at::_make_dual(in.key, along.key, level),
                at::_make_dual(in.value, along.value, level), {.mask = causal()});
  const auto tangent = std::get<1>(at::_unpack_dual(dual, level));
  torch::autograd::ForwardADLevel::release_idx(static_cast<uint64_t>(level));
  ASSERT_TRUE(tangent.defined());
  expect_close(tangent, expected, 1e-8);
}

// ---- dtypes, determinism

/// Computes attention in plain ATen operations of one dtype, from whose error the allowed error of the
/// library is derived.
torch::Tensor plain(const Inputs& in, const torch::Tensor& hidden) {
  const double scale = 1 / std::sqrt(static_cast<double>(in.query.size(-1)));
  const auto scores = torch::matmul(in.query, in.key.transpose(-2, -1)) * scale;
  return torch::matmul(torch::softmax(scores.masked_fill(hidden, -INFINITY), -1), in.value);
}

TEST_F(Attention, EveryDtypeIsAsAccurateAsPlainCodeAndTrains) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    for (const int64_t length : {1, 7, 64, 97}) {
      for (const int64_t d : {1, 8, 59, 128}) {
        const auto what = c10::str(dtype, " L ", length, " D ", d);
        const auto make = [&](const Inputs& from, torch::ScalarType to) {
          const auto leaf = [&](const torch::Tensor& t) {
            return t.detach().to(to).clone().requires_grad_();
          };
          return Inputs{leaf(from.query), leaf(from.key), leaf(from.value)};
        };
        const auto ours = make(random_inputs(2, 2, 2, length, length, d, d, dtype), dtype);
        const auto simple = make(ours, dtype), exact = make(ours, torch::kDouble);
        const auto hidden = torch::ones({length, length}, torch::kBool).triu(1);
        const auto got = attention_with_lse(ours.query, ours.key, ours.value, {.mask = causal()});
        const auto by_plain = plain(simple, hidden), by_exact = plain(exact, hidden);
        EXPECT_EQ(got.output.scalar_type(), dtype);
        EXPECT_EQ(got.logsumexp.scalar_type(), torch::kFloat);
        expect_as_accurate(got.output, max_difference(by_plain, by_exact), by_exact, 2, what);
        const auto direction = random(by_exact.sizes(), dtype);
        got.output.backward(direction);
        by_plain.backward(direction);
        by_exact.backward(direction.to(torch::kDouble));
        expect_as_accurate(ours.query.grad(), max_difference(simple.query.grad(), exact.query.grad()),
                           exact.query.grad(), 3, what + " query");
        expect_as_accurate(ours.key.grad(), max_difference(simple.key.grad(), exact.key.grad()),
                           exact.key.grad(), 3, what + " key");
        expect_as_accurate(ours.value.grad(), max_difference(simple.value.grad(), exact.value.grad()),
                           exact.value.grad(), 3, what + " value");
      }
    }
  }
}

TEST_F(Attention, HalfInputsTakeAFloat32Bias) {
  const auto in = random_inputs(1, 2, 2, 3, 4, 8, 8, torch::kBFloat16);
  auto values = random({3, 4}, torch::kFloat).requires_grad_();
  const auto output = attention(in.query, in.key, in.value, {.score_mod = bias(values)});
  output.sum().backward();
  EXPECT_EQ(output.scalar_type(), torch::kBFloat16);
  EXPECT_EQ(values.grad().scalar_type(), torch::kFloat);
}

TEST_F(Attention, SameBitsForEveryThreadCountAndRun) {
  const int threads = at::get_num_threads();
  std::vector<torch::Tensor> first;
  for (const int count : {1, 2, 3, 5, 1, 2}) {
    at::set_num_threads(count);
    torch::manual_seed(0);
    auto in = random_inputs(2, 4, 2, 129, 131, 24, 40, torch::kFloat);
    for (auto* tensor : {&in.query, &in.key, &in.value}) tensor->requires_grad_();
    const auto output = attention(in.query, in.key, in.value, {.mask = causal(), .dropout_p = 0.2});
    output.square().sum().backward();
    const std::vector<torch::Tensor> now = {output, in.query.grad(), in.key.grad(), in.value.grad()};
    if (first.empty()) first = now;
    for (size_t n = 0; n < now.size(); ++n)
      EXPECT_TRUE(same_bits(now[n], first[n])) << count << " threads, " << n;
  }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace attend::testing
