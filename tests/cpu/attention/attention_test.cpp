// Compares the fused kernels with the reference in float64. The allowed error is derived from that of the
// reference in the same dtype.
#include <ATen/Parallel.h>
#include <attend/attention.h>

#include <thread>

#include "support.h"

namespace attend::testing {
namespace {

struct Sizes {
  int64_t batch, heads, kv_heads, queries, keys, d, d_v;
};

struct Inputs {
  torch::Tensor query, key, value, bias, slopes;

  static Inputs random(const Sizes& s, torch::ScalarType dtype) {
    const auto make = [&](at::IntArrayRef sizes) { return torch::randn(sizes, torch::kDouble).to(dtype); };
    return {make({s.batch, s.heads, s.queries, s.d}),
            make({s.batch, s.kv_heads, s.keys, s.d}),
            make({s.batch, s.kv_heads, s.keys, s.d_v}),
            {},
            {}};
  }

  /// Returns copies in `dtype` that are leaves of the autograd graph.
  Inputs leaves(torch::ScalarType dtype) const {
    const auto leaf = [&](const torch::Tensor& tensor) {
      return tensor.defined() ? tensor.detach().to(dtype).clone().requires_grad_() : tensor;
    };
    return {leaf(query), leaf(key), leaf(value), leaf(bias), leaf(slopes)};
  }
};

struct Results {
  torch::Tensor output, logsumexp;
  std::vector<torch::Tensor> gradients;
};

/// Returns the output, the logsumexp, and the gradients of a fixed function of both.
Results run(const Inputs& leaves, AttentionParams params, Backend backend) {
  torch::manual_seed(7);  // for the dropout
  params.backend = backend;
  if (leaves.bias.defined()) params.score_mod = bias(leaves.bias);
  if (leaves.slopes.defined()) params.score_mod = params.score_mod.then(alibi(leaves.slopes));
  Results results;
  torch::Tensor loss;
  if (params.weighting == Weighting::softmax) {
    const auto [output, logsumexp] = attention_with_lse(leaves.query, leaves.key, leaves.value, params);
    results.output = output;
    results.logsumexp = logsumexp;
    loss = logsumexp.masked_fill(logsumexp.isinf(), 0).sum() * 0.5;
  } else {
    results.output = attention(leaves.query, leaves.key, leaves.value, params);
    loss = torch::zeros({}, results.output.options());
  }
  const auto direction = torch::linspace(-1, 1, results.output.numel(), torch::kDouble)
                             .cos()
                             .to(results.output.scalar_type())
                             .view(results.output.sizes());
  loss = loss + (results.output * direction).sum();
  loss.backward();
  for (const auto& leaf : {leaves.query, leaves.key, leaves.value, leaves.bias, leaves.slopes}) {
    if (leaf.defined()) results.gradients.push_back(leaf.grad());
  }
  return results;
}

/// Returns the errors of the reference in `dtype`: of the output, the logsumexp and each gradient. For
/// float64 no more exact result exists: the errors are taken to be those of float32 times the ratio of the
/// unit roundoffs, doubled because the float64 reference has errors, too.
std::vector<double> plain_errors(const Inputs& in, const AttentionParams& params, torch::ScalarType dtype) {
  if (dtype == torch::kDouble) {
    auto errors = plain_errors(in.leaves(torch::kFloat), params, torch::kFloat);
    for (auto& error : errors) error *= 2 * unit_roundoff(torch::kDouble) / unit_roundoff(torch::kFloat);
    return errors;
  }
  const auto plain = run(in.leaves(dtype), params, Backend::reference);
  const auto exact = run(in.leaves(torch::kDouble), params, Backend::reference);
  std::vector<double> errors = {max_difference(plain.output, exact.output)};
  errors.push_back(exact.logsumexp.defined() ? max_difference(plain.logsumexp, exact.logsumexp) : 0);
  for (size_t n = 0; n < exact.gradients.size(); ++n) {
    errors.push_back(max_difference(plain.gradients[n], exact.gradients[n]));
  }
  return errors;
}

/// Expects at most twice the error of the reference in the same dtype, three times for gradients.
void expect_fused(const Inputs& in, const AttentionParams& params, const std::string& what) {
  const auto dtype = in.query.scalar_type();
  const auto ours = run(in.leaves(dtype), params, Backend::fused);
  const auto exact = run(in.leaves(torch::kDouble), params, Backend::reference);
  const auto errors = plain_errors(in, params, dtype);
  expect_as_accurate(ours.output, errors[0], exact.output, 2, what + ": output");
  if (exact.logsumexp.defined()) {
    expect_as_accurate(ours.logsumexp, errors[1], exact.logsumexp, 2, what + ": logsumexp");
  }
  const std::vector<std::string> names = {"query", "key", "value", in.bias.defined() ? "bias" : "slopes",
                                          "slopes"};
  for (size_t n = 0; n < exact.gradients.size(); ++n) {
    expect_as_accurate(ours.gradients[n], errors[2 + n], exact.gradients[n], 3,
                       what + ": gradient of the " + names[n]);
  }
}

const std::vector<torch::ScalarType> dtypes = {torch::kDouble, torch::kFloat, torch::kBFloat16, torch::kHalf};

class FusedAttention : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TEST_F(FusedAttention, LengthsAndHeadSizes) {
  for (const auto dtype : dtypes) {
    for (const int64_t length : {1, 7, 63, 64, 65, 97, 1025}) {
      for (const int64_t d : {1, 8, 59, 64, 111, 128, 256}) {
        if (length == 1025 && d != 64 && d != 59) continue;  // for long sequences, two head sizes are enough
        expect_fused(Inputs::random({1, 2, 2, length, length, d, d}, dtype), {.mask = causal()},
                     c10::str(dtype, " L ", length, " D ", d));
      }
    }
  }
}

TEST_F(FusedAttention, DifferentLengthsHeadSizesAndHeadCounts) {
  const std::vector<Sizes> all = {{2, 4, 2, 5, 9, 8, 3},      {1, 6, 1, 33, 200, 16, 40},
                                  {2, 8, 2, 100, 30, 59, 64}, {1, 3, 3, 193, 385, 20, 20},
                                  {1, 8, 2, 1, 1500, 64, 64}, {3, 2, 1, 2, 2000, 32, 8}};
  for (const auto dtype : dtypes) {
    for (const auto& s : all) {
      expect_fused(Inputs::random(s, dtype), {}, c10::str(dtype, " ", s.queries, " x ", s.keys, ", D ", s.d));
    }
  }
}

TEST_F(FusedAttention, EveryMask) {
  const Sizes sizes{2, 4, 2, 150, 310, 24, 24};
  const auto random_mask = [&](at::IntArrayRef shape) { return dense(torch::rand(shape) < 0.6); };
  const auto blocks = torch::zeros({150, 310}, torch::kBool);
  blocks.slice(0, 0, 100).slice(1, 0, 200).fill_(true);
  const auto lengths = key_lengths(torch::tensor({310, 117}));
  const std::vector<std::pair<std::string, Mask>> masks = {
      {"causal", causal()},
      {"causal, top left", causal(Corner::top_left)},
      {"window", window(20, 5)},
      {"window, left unbounded", window(-1, 0)},
      {"key_lengths", lengths},
      {"key_lengths, 0", key_lengths(torch::tensor({0, 310}))},
      {"prefix", causal() | prefix(torch::tensor({200, 3}))},
      {"documents", documents(torch::arange(310).div(47, "floor"))},
      {"documents, unordered, causal", documents(torch::randint(3, {2, 310})) & causal()},
      {"dense", random_mask({2, 4, 150, 310})},
      {"dense, per head", random_mask({4, 1, 310})},
      {"dense, per query", random_mask({150, 1})},
      {"dense, block", dense(blocks)},
      {"both", causal() & window(40, 0) & lengths},
      {"either", window(3, 3) | dense(blocks)},
      {"not", ~causal()},
      {"nothing", window(-1, -1) & ~window(-1, -1)},
  };
  for (const auto dtype : dtypes) {
    for (const auto& [name, mask] : masks) {
      expect_fused(Inputs::random(sizes, dtype), {.mask = mask}, c10::str(dtype, " ", name));
    }
  }
}

TEST_F(FusedAttention, BiasOfEveryShapeWithEveryMask) {
  const Sizes sizes{2, 4, 2, 70, 450, 16, 16};
  const std::vector<std::vector<int64_t>> shapes = {
      {2, 4, 70, 450}, {1, 4, 70, 450}, {2, 1, 70, 450}, {70, 450}, {4, 70, 1}, {2, 1, 1, 450}, {1},
      {4, 1, 1}};
  for (const auto dtype : dtypes) {
    for (const auto& shape : shapes) {
      for (const auto& mask : {Mask(), causal(), window(9, 9)}) {
        auto in = Inputs::random(sizes, dtype);
        in.bias = torch::randn(shape, torch::kDouble).to(dtype);
        expect_fused(in, {.mask = mask}, c10::str(dtype, " bias ", at::IntArrayRef(shape)));
      }
    }
  }
}

TEST_F(FusedAttention, BiasWithOneQueryOrOneKey) {
  struct Case {
    Sizes sizes;
    std::vector<std::vector<int64_t>> shapes;
  };
  const std::vector<Case> cases = {
      {{2, 4, 2, 1, 250, 8, 8}, {{2, 4, 1, 250}, {1, 1, 1, 250}, {250}, {2, 1, 1, 1}, {1}}},
      {{2, 4, 2, 130, 1, 8, 8}, {{2, 4, 130, 1}, {130, 1}, {4, 1, 1}, {1}}},
      {{1, 1, 1, 1, 1, 8, 8}, {{1, 1, 1, 1}, {1}}}};
  for (const auto& [sizes, shapes] : cases) {
    for (const auto& shape : shapes) {
      for (const auto weighting : {Weighting::softmax, Weighting::sigmoid}) {
        auto in = Inputs::random(sizes, torch::kFloat);
        in.bias = torch::randn(shape);
        expect_fused(
            in, {.weighting = weighting},
            c10::str(sizes.queries, " queries, ", sizes.keys, " keys, bias ", at::IntArrayRef(shape)));
      }
    }
  }
}

TEST_F(FusedAttention, AlibiWithAndWithoutBias) {
  for (const auto dtype : dtypes) {
    for (const bool with_bias : {false, true}) {
      for (const auto& mask : {Mask(), causal(), window(30, 0)}) {
        auto in = Inputs::random({2, 4, 2, 70, 450, 16, 16}, dtype);
        in.slopes = torch::exp2(-torch::arange(1, 5, torch::kDouble) * 2).to(dtype);
        if (with_bias) in.bias = torch::randn({4, 70, 450}, torch::kDouble).to(dtype);
        expect_fused(in, {.mask = mask}, c10::str(dtype, " alibi, with bias ", with_bias));
      }
    }
  }
}

TEST_F(FusedAttention, BiasOfMinusInfinityMasks) {
  auto in = Inputs::random({1, 2, 2, 30, 250, 8, 8}, torch::kFloat);
  in.bias = torch::randn({30, 250});
  in.bias.slice(1, 100).fill_(-INFINITY);
  in.bias[3].fill_(-INFINITY);
  expect_fused(in, {}, "bias of -inf");
}

TEST_F(FusedAttention, EveryWeightingWithDropout) {
  for (const auto dtype : dtypes) {
    for (const auto weighting : {Weighting::softmax, Weighting::sigmoid, Weighting::relu}) {
      for (const double p : {0.0, 0.3, 1.0}) {
        expect_fused(Inputs::random({2, 4, 2, 65, 203, 16, 24}, dtype),
                     {.mask = causal(), .dropout_p = p, .weighting = weighting},
                     c10::str(dtype, " weighting ", static_cast<int>(weighting), " dropout ", p));
      }
    }
  }
}

TEST_F(FusedAttention, LargeScores) {
  for (const auto dtype : dtypes) {
    expect_fused(Inputs::random({1, 2, 2, 65, 300, 16, 16}, dtype), {.mask = causal(), .scale = 500},
                 c10::str(dtype, " large"));
  }
}

TEST_F(FusedAttention, AnyStrides) {
  auto in = Inputs::random({2, 4, 4, 40, 50, 16, 16}, torch::kFloat);
  const auto spread = [](const torch::Tensor& tensor) {
    return tensor.transpose(1, 2).contiguous().transpose(1, 2).transpose(2, 3).contiguous().transpose(2, 3);
  };
  const auto expected = attention(in.query, in.key, in.value);
  expect_close(attention(spread(in.query), spread(in.key), spread(in.value)), expected, 1e-6);
  const auto one_key = in.key.slice(1, 0, 1);
  expect_close(attention(in.query, one_key.expand({2, 4, 50, 16}), in.value),
               attention(in.query, one_key.repeat({1, 4, 1, 1}), in.value), 0);
}

TEST_F(FusedAttention, UnalignedRows) {
  const auto odd = [](const torch::Tensor& tensor) {
    return torch::constant_pad_nd(tensor, {1, 4}, NAN).slice(-1, 1, 1 + tensor.size(-1));
  };
  for (const auto dtype : dtypes) {
    const auto in = Inputs::random({1, 2, 1, 41, 51, 32, 64}, dtype);
    const Inputs spread{odd(in.query), odd(in.key), odd(in.value), {}, {}};
    expect_close(attention(spread.query, spread.key, spread.value), attention(in.query, in.key, in.value), 0);
  }
}

TEST_F(FusedAttention, MaskedNaNsReachNoOtherGradient) {
  // The key is masked for all queries; their number is odd, so that the last pair of bfloat16 has one query.
  for (const auto dtype : dtypes) {
    const auto in = Inputs::random({1, 1, 1, 7, 9, 16, 16}, dtype);
    in.key.select(2, 4).fill_(NAN);
    auto allowed = torch::ones({7, 9}, torch::kBool);
    allowed.select(1, 4).fill_(false);
    const auto got = run(in.leaves(dtype), {.mask = dense(allowed)}, Backend::fused);
    EXPECT_TRUE(got.output.isfinite().all().item<bool>()) << dtype;
    EXPECT_TRUE(got.gradients[1].isfinite().all().item<bool>()) << dtype;
    EXPECT_TRUE(got.gradients[2].isfinite().all().item<bool>()) << dtype;
    EXPECT_EQ(got.gradients[2].select(2, 4).abs().max().item<double>(), 0) << dtype;
  }
}

TEST_F(FusedAttention, OffsetsBeyondThirtyTwoBits) {
  // 2^32 elements in one row of memory: the stride is 0.
  const auto row = torch::randn({1, 1, 1, 16});
  const auto query = torch::randn({1, 1, 2, 16});
  const auto keys = row.expand({1, 1, int64_t{1} << 28, 16});
  const auto output = attention(query, keys, keys, {.mask = window(300, 0)});
  expect_close(output, row.expand({1, 1, 2, 16}), 1e-5);
}

TEST_F(FusedAttention, RowsWithLargeStrides) {
  // The last rows begin 2^31 or more elements after the first. Memory between rows is not touched.
  const int64_t stride = int64_t{1} << 30;
  const auto far_apart = [&](const torch::Tensor& rows) {
    const auto storage = torch::empty({3 * stride + rows.size(-1)}, torch::kBFloat16);
    return storage.as_strided(rows.sizes(), {0, 0, stride, 1}).copy_(rows);
  };
  const auto in = Inputs::random({1, 1, 1, 4, 4, 16, 16}, torch::kBFloat16);
  const auto spread = Inputs{far_apart(in.query), far_apart(in.key), far_apart(in.value), {}, {}};
  expect_close(attention(spread.query, spread.key, spread.value, {.mask = causal()}),
               attention(in.query, in.key, in.value, {.mask = causal()}), 0);
}

TEST_F(FusedAttention, NaNsOfEveryPayloadStayNaN) {
  for (const auto dtype : {torch::kFloat, torch::kDouble}) {
    auto in = Inputs::random({1, 1, 1, 40, 40, 8, 8}, dtype);
    for (const int64_t payload : {0, 1, 1954}) {
      if (dtype == torch::kDouble) {
        in.query.view(torch::kLong).select(2, 3).fill_(0x7FF8000000000000 + payload);
      } else {
        in.query.view(torch::kInt).select(2, 3).fill_(0x7FC00000 + payload);
      }
      EXPECT_TRUE(attention(in.query, in.key, in.value).select(2, 3).isnan().all().item<bool>())
          << dtype << " " << payload;
    }
  }
}

TEST_F(FusedAttention, GradientsOwnOnlyTheirMemory) {
  const auto in = Inputs::random({1, 1, 1, 64, 4096, 64, 64}, torch::kFloat).leaves(torch::kFloat);
  const auto results = run(in, {}, Backend::fused);
  for (const auto& gradient : results.gradients) {
    EXPECT_EQ(gradient.storage().nbytes(), gradient.nbytes());
  }
}

TEST_F(FusedAttention, KeysPastTheirLengthAreNeverRead) {
  for (const auto dtype : dtypes) {
    for (const int64_t keys : {50, 500}) {
      auto in = Inputs::random({2, 2, 1, 9, keys, 16, 16}, dtype);
      in.key.slice(2, keys - 20).fill_(NAN);
      in.value.slice(2, keys - 20).fill_(NAN);
      const auto leaves = in.leaves(dtype);
      const auto lengths = torch::tensor({keys - 20, int64_t{3}});
      const auto got = run(leaves, {.mask = key_lengths(lengths)}, Backend::fused);
      EXPECT_TRUE(got.output.isfinite().all().item<bool>()) << dtype;
      for (const auto& gradient : got.gradients) EXPECT_TRUE(gradient.isfinite().all().item<bool>()) << dtype;
      EXPECT_EQ(got.gradients[1].slice(2, keys - 20).abs().max().item<double>(), 0) << dtype;
    }
  }
}

/// Returns the gradients, the output and the logsumexp.
std::vector<torch::Tensor> all_results(const Inputs& in, const AttentionParams& params) {
  auto results = run(in.leaves(in.query.scalar_type()), params, Backend::fused);
  results.gradients.push_back(results.output);
  results.gradients.push_back(results.logsumexp);
  return results.gradients;
}

bool same_bits(const std::vector<torch::Tensor>& left, const std::vector<torch::Tensor>& right) {
  return std::ranges::equal(left, right,
                            [](const auto& a, const auto& b) { return testing::same_bits(a, b); });
}

TEST_F(FusedAttention, SameBitsForEveryThreadCountAndRun) {
  const int threads = at::get_num_threads();
  for (const auto& [sizes, dtype] : {std::pair{Sizes{1, 1, 1, 300, 900, 32, 32}, torch::kFloat},
                                     {Sizes{2, 6, 2, 70, 200, 16, 24}, torch::kFloat},
                                     {Sizes{2, 6, 2, 70, 200, 16, 24}, torch::kBFloat16}}) {
    auto in = Inputs::random(sizes, dtype);
    in.bias = torch::randn({sizes.queries, sizes.keys}).to(dtype);
    const AttentionParams params{.mask = causal(), .dropout_p = 0.1};
    at::set_num_threads(1);
    const auto first = all_results(in, params);
    for (const int count : {1, 2, 3, 5}) {
      at::set_num_threads(count);
      for (int repeat = 0; repeat < 13; ++repeat) {
        EXPECT_TRUE(same_bits(all_results(in, params), first)) << count << " threads";
      }
    }
  }
  at::set_num_threads(threads);
}

TEST_F(FusedAttention, SameBitsFromConcurrentCallers) {
  const auto in = Inputs::random({2, 2, 2, 100, 400, 32, 32}, torch::kFloat);
  const auto expected = attention(in.query, in.key, in.value, {.mask = causal()});
  std::vector<torch::Tensor> results(8);
  std::vector<std::thread> callers;
  for (auto& result : results) {
    callers.emplace_back([&] { result = attention(in.query, in.key, in.value, {.mask = causal()}); });
  }
  for (auto& caller : callers) caller.join();
  for (const auto& result : results) EXPECT_TRUE(testing::same_bits(result, expected));
}

TEST_F(FusedAttention, SecondDerivativesEqualTheReference) {
  const auto in = Inputs::random({1, 2, 1, 5, 7, 4, 3}, torch::kDouble);
  const auto second = [&](Backend backend) {
    const auto leaves = in.leaves(torch::kDouble);
    const auto output =
        attention(leaves.query, leaves.key, leaves.value, {.mask = causal(), .backend = backend});
    const auto first =
        torch::autograd::grad({output.sin().sum()}, {leaves.query, leaves.key, leaves.value}, {},
                              /*retain_graph=*/true, /*create_graph=*/true);
    (first[0].square().sum() + first[1].square().sum() + first[2].square().sum()).backward();
    return std::vector<torch::Tensor>{leaves.query.grad(), leaves.key.grad(), leaves.value.grad()};
  };
  const auto ours = second(Backend::fused), expected = second(Backend::reference);
  for (size_t n = 0; n < 3; ++n) expect_close(ours[n], expected[n], 1e-12);
}

TEST_F(FusedAttention, NeedsNoMemoryForTheScores) {
  // The scores of the whole call would take 64 GiB.
  const auto in = Inputs::random({1, 1, 1, 1 << 17, 1 << 17, 16, 16}, torch::kFloat).leaves(torch::kFloat);
  const auto results = run(in, {.mask = window(64, 0)}, Backend::fused);
  const auto last = [](const torch::Tensor& tensor) { return tensor.slice(2, (1 << 17) - 100); };
  const auto part = attention(last(in.query), last(in.key), last(in.value), {.mask = window(64, 0)});
  expect_close(results.output.slice(2, (1 << 17) - 30), part.slice(2, 70), 1e-5);
}

}  // namespace
}  // namespace attend::testing
