// Positional encodings are compared with the papers' formulas in complex numbers and with results of the
// Python package transformers (recorded by tests/record/record_modules.py).
#include <attend/attention.h>
#include <attend/positional_encoding.h>

#include <complex>

#include "recorded.h"
#include "support.h"

namespace attend::testing {
namespace {

class Position : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

/// Computes equation 34 of Su 2021 by rotating each pair of channels as a complex number. x is float64 [L,
/// D].
torch::Tensor naive_rotary(const torch::Tensor& x, const std::vector<double>& frequencies,
                           const std::vector<double>& positions, bool interleaved) {
  auto result = x.clone();
  auto values = result.accessor<double, 2>();
  const auto pairs = static_cast<int64_t>(frequencies.size());
  for (int64_t l = 0; l < x.size(0); ++l) {
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + pairs;
      const double angle = positions[static_cast<size_t>(l)] * frequencies[static_cast<size_t>(i)];
      const auto rotated = std::complex(values[l][a], values[l][b]) * std::polar(1.0, angle);
      values[l][a] = rotated.real();
      values[l][b] = rotated.imag();
    }
  }
  return result;
}

std::vector<double> plain_frequencies(int64_t dims, double base) {
  std::vector<double> frequencies;
  for (int64_t i = 0; i < dims; i += 2) {
    frequencies.push_back(1 / std::pow(base, static_cast<double>(i) / static_cast<double>(dims)));
  }
  return frequencies;
}

// ---- rotary

TEST_F(Position, RotaryRotatesPairsOfChannels) {
  for (const auto layout : {RotaryLayout::half_split, RotaryLayout::interleaved}) {
    for (const int64_t dims : {2, 6, 8}) {
      for (const double base : {10000.0, 500.0}) {
        const auto x = torch::randn({7, 8}, torch::kDouble);
        const auto expected = naive_rotary(x, plain_frequencies(dims, base), {0, 1, 2, 3, 4, 5, 6},
                                           layout == RotaryLayout::interleaved);
        expect_close(rotary(x, {.layout = layout, .dims = dims, .base = base}), expected, 1e-14);
      }
    }
  }
}

TEST_F(Position, RotaryPositionsMayBeGivenPerSequence) {
  const auto x = torch::randn({2, 3, 4, 6}, torch::kDouble);
  const auto frequencies = plain_frequencies(6, 10000);
  const auto positions = torch::tensor({{5, 6, 7, 8}, {0, 100, 3, 100000}});
  const auto rotated = rotary(x, {}, positions);
  for (int64_t h = 0; h < 3; ++h) {
    expect_close(rotated[0][h], naive_rotary(x[0][h], frequencies, {5, 6, 7, 8}, false), 1e-13);
    expect_close(rotated[1][h], naive_rotary(x[1][h], frequencies, {0, 100, 3, 100000}, false), 1e-10);
  }
  EXPECT_TRUE(same_bits(rotary(x.select(1, 1), {}, positions), rotated.select(1, 1)));
  EXPECT_TRUE(same_bits(rotary(x[1][1], {}, positions[1]), rotated[1][1]));
  EXPECT_TRUE(same_bits(rotary(x, {}, positions[0].to(torch::kInt)), rotary(x, {}, positions[0])));
  EXPECT_TRUE(same_bits(rotary(x), rotary(x, {}, torch::arange(4))));
}

TEST_F(Position, RotaryMakesScoresDependOnTheDistanceAlone) {
  const auto query = torch::randn({1, 8}, torch::kDouble), key = torch::randn({1, 8}, torch::kDouble);
  const auto score = [&](int64_t i, int64_t j) {
    return torch::matmul(rotary(query, {}, torch::tensor({i})), rotary(key, {}, torch::tensor({j})).t());
  };
  expect_close(score(3, 1), score(1003, 1001), 1e-11);
}

// An angle above 2048 would be wrong by a radian or more in float16, and an angle of 100,000 by 0.004 in
// float32.
TEST_F(Position, RotaryIsAsAccurateAsItsDtype) {
  const auto positions = torch::tensor({0, 1, 4097, 100003, 1000003});
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kHalf}) {
    const auto x = torch::randn({2, 5, 64}).to(dtype);
    const auto exact = rotary(x.to(torch::kDouble), {}, positions);
    const auto rotated = rotary(x, {}, positions);
    EXPECT_EQ(rotated.scalar_type(), dtype);
    // The errors are those of the rounded sine and cosine, of two products and a sum in float32, and of one
    // rounding of the result.
    const double largest = exact.abs().max().item<double>();
    expect_close(rotated, exact, (unit_roundoff(dtype) + 8 * unit_roundoff(torch::kFloat)) * largest);
  }
}

TEST_F(Position, RotaryScalesFrequencies) {
  const auto plain = rotary_frequencies(8);
  expect_close(plain, torch::tensor({1.0, 0.1, 0.01, 0.001}, torch::kDouble), 1e-16);
  expect_close(rotary_frequencies(8, {.scaling = RotaryScaling::linear, .factor = 4}), plain / 4, 1e-16);
  // The base is chosen such that the lowest frequency is divided by the factor.
  const auto ntk = rotary_frequencies(8, {.scaling = RotaryScaling::ntk, .factor = 4});
  expect_close(ntk,
               torch::tensor({1.0, 0.1 / std::pow(4, 1 / 3.0), 0.01 / std::pow(4, 2 / 3.0), 0.001 / 4},
                             torch::kDouble),
               1e-16);
  expect_close(rotary_frequencies(2, {.scaling = RotaryScaling::ntk, .factor = 4}), plain.slice(0, 0, 1), 0);
  EXPECT_EQ(rotary_frequencies(8, {.dims = 4}).size(0), 2);
}

TEST_F(Position, YarnAgreesWithTransformers) {
  for (const auto& [name, recorded] : recorded_cases("modules.safetensors")) {
    if (!name.starts_with("yarn")) continue;
    SCOPED_TRACE(name);
    const auto values = recorded.at("params");
    const auto dims = values[0].item<int64_t>();
    const RotaryParams params{.base = values[1].item<double>(),
                              .scaling = RotaryScaling::yarn,
                              .factor = values[2].item<double>(),
                              .original_length = values[3].item<int64_t>()};
    // transformers computes the frequencies in a dozen operations in float32; the tolerance is relative.
    const auto ratio = rotary_frequencies(dims, params) / recorded.at("frequencies");
    expect_close(ratio, torch::ones_like(ratio), 16 * unit_roundoff(torch::kFloat));
    // At position 0 nothing is rotated, so the result is the attention factor.
    const auto ones = torch::ones({1, dims}, torch::kDouble);
    expect_close(rotary(ones, params), ones * recorded.at("attention_factor"), 1e-15);
    auto unscaled = params;
    unscaled.attention_factor = 1;
    expect_close(rotary(ones, unscaled), ones, 0);
  }
}

// If the training context is shorter than one rotation, every frequency except the highest is interpolated.
TEST_F(Position, YarnOfATinyContextInterpolates) {
  const auto frequencies =
      rotary_frequencies(8, {.scaling = RotaryScaling::yarn, .factor = 2, .original_length = 4});
  expect_close(frequencies, rotary_frequencies(8) * torch::tensor({1.0, 0.5, 0.5, 0.5}, torch::kDouble),
               1e-16);
}

TEST_F(Position, RotaryIsDifferentiable) {
  for (const auto layout : {RotaryLayout::half_split, RotaryLayout::interleaved}) {
    const auto x = torch::randn({2, 3, 6}, torch::kDouble).requires_grad_();
    expect_gradients([&] { return rotary(x, {.layout = layout, .dims = 4}).sin().sum(); }, {x});
  }
}

TEST_F(Position, RotaryErrorsNameTheArgument) {
  const auto x = torch::rand({2, 3, 4, 6});
  const auto error = [&](const RotaryParams& params, const torch::Tensor& positions = {}) {
    return error_of([&] { rotary(x, params, positions); });
  };
  EXPECT_EQ(error_of([] { rotary(torch::rand({4})); }),
            "attend::rotary: x: expected [B, H, L, D], [B, L, D] or [L, D], got float32 [4]");
  EXPECT_EQ(error_of([] { rotary(torch::ones({2, 4}, torch::kLong)); }),
            "attend::rotary: x: expected dtype float64, float32, bfloat16 or float16, got int64 [2, 4]");
  EXPECT_EQ(error({.dims = 3}), "attend::rotary: dims: expected an even number of at least 2, got 3");
  EXPECT_EQ(error({.dims = 8}), "attend::rotary: dims: expected at most the 6 channels of x, got 8");
  EXPECT_EQ(error_of([] { rotary(torch::rand({2, 5})); }),
            "attend::rotary: dims: expected an even number of at least 2, got 5");
  EXPECT_EQ(error({.base = 1}), "attend::rotary: base: expected a number above 1, got 1");
  EXPECT_EQ(error({.factor = 0.5}), "attend::rotary: factor: expected a number of at least 1, got 0.5");
  EXPECT_EQ(error({.factor = 2}), "attend::rotary: factor: expected 1 without a scaling, got 2");
  EXPECT_EQ(error({.scaling = RotaryScaling::yarn}),
            "attend::rotary: original_length: expected the length of the training context, for YaRN, got 0");
  EXPECT_EQ(error({.scaling = RotaryScaling::yarn, .original_length = 9, .beta_fast = 1, .beta_slow = 2}),
            "attend::rotary: beta_fast: expected at least beta_slow, above 0; beta_slow is 2, got 1");
  EXPECT_EQ(error({}, torch::arange(3)),
            "attend::rotary: positions: expected int64 or int32 [4] or [2, 4], got int64 [3]");
  EXPECT_EQ(error({}, torch::rand({4})),
            "attend::rotary: positions: expected int64 or int32 [4] or [2, 4], got float32 [4]");
  EXPECT_EQ(error_of([] { rotary_frequencies(7); }),
            "attend::rotary_frequencies: dims: expected an even number of at least 2, got 7");
}

// ---- slopes, sinusoids, buckets

TEST_F(Position, AlibiSlopesAgreeWithTheAuthorsCode) {
  const auto recorded = recorded_cases("modules.safetensors").at("alibi");
  for (const auto& [heads, slopes] : recorded) {
    expect_close(alibi_slopes(std::stoll(heads)), slopes, unit_roundoff(torch::kFloat), heads + " heads");
  }
  EXPECT_EQ(alibi_slopes(0).size(0), 0);
  EXPECT_EQ(error_of([] { alibi_slopes(-1); }),
            "attend::alibi_slopes: num_heads: expected at least 0, got -1");
}

TEST_F(Position, SinusoidalIsVaswanis) {
  for (const int64_t dim : {1, 5, 6}) {
    const auto table = sinusoidal(4, dim, /*first_position=*/10, 1000, torch::kDouble);
    ASSERT_EQ(table.sizes(), (std::vector<int64_t>{4, dim}));
    for (int64_t p = 0; p < 4; ++p) {
      for (int64_t c = 0; c < dim; ++c) {
        const double exponent = static_cast<double>(c / 2 * 2) / static_cast<double>(dim);
        const double angle = static_cast<double>(p + 10) / std::pow(1000, exponent);
        EXPECT_NEAR(table[p][c].item<double>(), c % 2 == 0 ? std::sin(angle) : std::cos(angle), 1e-14);
      }
    }
  }
  EXPECT_EQ(sinusoidal(3, 4).scalar_type(), torch::kFloat);
  EXPECT_TRUE(same_bits(sinusoidal(9, 4).slice(0, 4), sinusoidal(5, 4, 4)));
  EXPECT_EQ(sinusoidal(0, 4).sizes(), (std::vector<int64_t>{0, 4}));
  EXPECT_EQ(error_of([] { sinusoidal(-1, 4); }), "attend::sinusoidal: length: expected at least 0, got -1");
  EXPECT_EQ(error_of([] { sinusoidal(1, 0); }), "attend::sinusoidal: dim: expected at least 1, got 0");
}

TEST_F(Position, BucketsAgreeWithT5) {
  for (const auto& [name, recorded] : recorded_cases("modules.safetensors")) {
    if (!name.starts_with("buckets")) continue;
    const auto params = recorded.at("params");
    const RelativeBuckets buckets{.count = params[1].item<int64_t>(),
                                  .max_distance = params[2].item<int64_t>(),
                                  .bidirectional = params[0].item<int64_t>() == 1};
    for (int64_t distance = -300; distance <= 300; ++distance) {
      ASSERT_EQ(relative_bucket(distance, buckets), recorded.at("buckets")[distance + 300].item<int64_t>())
          << name << ", distance " << distance;
    }
  }
}

TEST_F(Position, BucketsAlignTheLastQueryWithTheLastKey) {
  const auto buckets = relative_buckets(2, 5);
  ASSERT_EQ(buckets.sizes(), (std::vector<int64_t>{2, 5}));
  for (int64_t i = 0; i < 2; ++i) {
    for (int64_t j = 0; j < 5; ++j)
      EXPECT_EQ(buckets[i][j].item<int64_t>(), relative_bucket(j - (i + 3))) << i << ", " << j;
  }
}

TEST_F(Position, BucketErrorsNameTheParameter) {
  EXPECT_EQ(error_of([] { relative_bucket(1, {.count = 5}); }),
            "attend::relative_bucket: count: expected an even number of at least 4, got 5");
  EXPECT_EQ(error_of([] { relative_bucket(1, {.count = 1, .bidirectional = false}); }),
            "attend::relative_bucket: count: expected at least 2 buckets, got 1");
  EXPECT_EQ(
      error_of([] { relative_bucket(1, {.count = 32, .max_distance = 8}); }),
      "attend::relative_bucket: max_distance: expected more than the 8 distances that have a bucket each, "
      "got 8");
}

}  // namespace
}  // namespace attend::testing
