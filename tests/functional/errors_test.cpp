// Tests that every wrong argument throws a c10::Error that states the function, the argument, what was
// expected and what was given.
#include <attend/attention.h>
#include <attend/error.h>

#include "support.h"

namespace attend::testing {
namespace {

torch::Tensor zeros(at::IntArrayRef sizes, torch::ScalarType dtype = torch::kFloat) {
  return torch::zeros(sizes, dtype);
}

std::string attention_error(const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
                            const AttentionParams& params = {}) {
  return error_of([&] { attention(query, key, value, params); });
}

std::string params_error(const AttentionParams& params) {
  return attention_error(zeros({2, 3, 4, 8}), zeros({2, 3, 5, 8}), zeros({2, 3, 5, 6}), params);
}

TEST(Errors, Query) {
  const auto key = zeros({2, 3, 5, 8}), value = zeros({2, 3, 5, 6});
  EXPECT_EQ(attention_error({}, key, value),
            "attend::attention: query: expected a tensor, got an undefined tensor");
  EXPECT_EQ(attention_error(zeros({8}), key, value),
            "attend::attention: query: expected [B, H, L, D], [B, L, D] or [L, D], got float32 [8]");
  EXPECT_EQ(
      attention_error(zeros({1, 2, 3, 4, 8}), key, value),
      "attend::attention: query: expected [B, H, L, D], [B, L, D] or [L, D], got float32 [1, 2, 3, 4, 8]");
  EXPECT_EQ(attention_error(torch::tensor(1.0F), key, value),
            "attend::attention: query: expected [B, H, L, D], [B, L, D] or [L, D], got float32 []");
  EXPECT_EQ(attention_error(zeros({2, 3, 4, 8}, torch::kLong), key, value),
            "attend::attention: query: expected dtype float64, float32, bfloat16 or float16, got int64 [2, "
            "3, 4, 8]");
  EXPECT_EQ(attention_error(zeros({2, 3, 4, 8}, torch::kComplexFloat), key, value),
            "attend::attention: query: expected dtype float64, float32, bfloat16 or float16, got complex64 "
            "[2, 3, 4, 8]");
  EXPECT_EQ(attention_error(zeros({4, 8}).to_sparse(), key, value),
            "attend::attention: query: expected a dense (strided) tensor, got layout Sparse");
  EXPECT_EQ(attention_error(zeros({2, 3, 4, 0}), zeros({2, 3, 5, 0}), value),
            "attend::attention: query: expected a last dimension of at least 1, got float32 [2, 3, 4, 0]");
}

TEST(Errors, Key) {
  const auto query = zeros({2, 4, 5, 8}), value = zeros({2, 2, 5, 6});
  EXPECT_EQ(attention_error(query, {}, value),
            "attend::attention: key: expected a tensor, got an undefined tensor");
  EXPECT_EQ(attention_error(query, zeros({2, 5, 8}), value),
            "attend::attention: key: expected the query's number of dimensions, 4, got float32 [2, 5, 8]");
  EXPECT_EQ(attention_error(query, zeros({2, 2, 5, 7}), value),
            "attend::attention: key: expected the query's last dimension, 8, got float32 [2, 2, 5, 7]");
  EXPECT_EQ(attention_error(query, zeros({3, 2, 5, 8}), value),
            "attend::attention: key: expected the query's batch size, 2, got float32 [3, 2, 5, 8]");
  EXPECT_EQ(attention_error(query, zeros({2, 3, 5, 8}), zeros({2, 3, 5, 6})),
            "attend::attention: key: expected a number of heads that divides the query's 4, got float32 [2, "
            "3, 5, 8]");
  EXPECT_EQ(attention_error(query, zeros({2, 0, 5, 8}), zeros({2, 0, 5, 6})),
            "attend::attention: key: expected a number of heads that divides the query's 4, got float32 [2, "
            "0, 5, 8]");
  EXPECT_EQ(attention_error(query, zeros({2, 2, 5, 8}, torch::kDouble), value),
            "attend::attention: key: expected the query's dtype float32, got float64 [2, 2, 5, 8]");
  EXPECT_EQ(attention_error(query, zeros({2, 2, 5, 8}).to(torch::kMeta), value),
            "attend::attention: key: expected a tensor on the query's device cpu, got meta");
  EXPECT_EQ(attention_error(query, zeros({5, 8}).to_sparse(), value),
            "attend::attention: key: expected a dense (strided) tensor, got layout Sparse");
}

TEST(Errors, Value) {
  const auto query = zeros({2, 4, 5, 8}), key = zeros({2, 2, 7, 8});
  EXPECT_EQ(attention_error(query, key, {}),
            "attend::attention: value: expected a tensor, got an undefined tensor");
  EXPECT_EQ(attention_error(query, key, zeros({2, 2, 5, 6})),
            "attend::attention: value: expected the key's length, 7, got float32 [2, 2, 5, 6]");
  EXPECT_EQ(attention_error(query, key, zeros({1, 2, 7, 6})),
            "attend::attention: value: expected the query's batch size, 2, got float32 [1, 2, 7, 6]");
  EXPECT_EQ(attention_error(query, key, zeros({2, 4, 7, 6})),
            "attend::attention: value: expected the key's number of heads, 2, got float32 [2, 4, 7, 6]");
  EXPECT_EQ(attention_error(query, key, zeros({2, 2, 7, 6}, torch::kHalf)),
            "attend::attention: value: expected the query's dtype float32, got float16 [2, 2, 7, 6]");
  EXPECT_EQ(attention_error(query, key, zeros({2, 7, 6})),
            "attend::attention: value: expected the query's number of dimensions, 4, got float32 [2, 7, 6]");
  EXPECT_EQ(attention_error(query, key, zeros({2, 2, 7, 6}).to(torch::kMeta)),
            "attend::attention: value: expected a tensor on the query's device cpu, got meta");
}

TEST(Errors, Scalars) {
  EXPECT_EQ(params_error({.dropout_p = 1.5}),
            "attend::attention: dropout_p: expected a probability in [0, 1], got 1.5");
  EXPECT_EQ(params_error({.dropout_p = -0.1}),
            "attend::attention: dropout_p: expected a probability in [0, 1], got -0.1");
  EXPECT_EQ(params_error({.dropout_p = NAN}),
            "attend::attention: dropout_p: expected a probability in [0, 1], got nan");
  const auto scale_error = [](double scale, torch::ScalarType dtype) {
    return attention_error(zeros({4, 8}, dtype), zeros({5, 8}, dtype), zeros({5, 6}, dtype),
                           {.scale = scale});
  };
  const std::string expected = "attend::attention: scale: expected a finite number in the range of ";
  EXPECT_EQ(scale_error(INFINITY, torch::kFloat), expected + "float32, got inf");
  EXPECT_EQ(scale_error(NAN, torch::kFloat), expected + "float32, got nan");
  EXPECT_EQ(scale_error(1e39, torch::kFloat), expected + "float32, got 1e+39");
  EXPECT_EQ(scale_error(-1e39, torch::kHalf), expected + "float32, got -1e+39");
  EXPECT_EQ(scale_error(-INFINITY, torch::kDouble), expected + "float64, got -inf");
}

TEST(Errors, InvalidEnumerators) {
  EXPECT_EQ(params_error({.weighting = static_cast<Weighting>(9)}),
            "attend::attention: weighting: expected softmax, sigmoid or relu, got 9");
  EXPECT_EQ(params_error({.backend = static_cast<Backend>(9)}),
            "attend::attention: backend: expected automatic, fused, sdpa or reference, got 9");
  EXPECT_EQ(error_of([] {
              explain(zeros({4, 8}), zeros({4, 8}), zeros({4, 8}), {.backend = static_cast<Backend>(-1)});
            }),
            "attend::explain: backend: expected automatic, fused, sdpa or reference, got -1");
  EXPECT_EQ(error_of([] { causal(static_cast<Corner>(7)); }),
            "attend::causal: corner: expected bottom_right or top_left, got 7");
}

TEST(Errors, Masks) {
  EXPECT_EQ(error_of([] { window(-2, 0); }), "attend::window: left: expected -1 (unbounded) or more, got -2");
  EXPECT_EQ(error_of([] { window(0, -3); }),
            "attend::window: right: expected -1 (unbounded) or more, got -3");
  EXPECT_EQ(
      error_of([] { dense(zeros({4, 5})); }),
      "attend::dense: allowed: expected dtype bool, true = may attend (attend::bias adds to the scores), got "
      "float32 [4, 5]");
  EXPECT_EQ(error_of([] { dense({}); }),
            "attend::dense: allowed: expected a tensor, got an undefined tensor");
  EXPECT_EQ(error_of([] { key_lengths(zeros({2})); }),
            "attend::key_lengths: lengths: expected int64 or int32 [B], got float32 [2]");
  EXPECT_EQ(error_of([] { key_lengths(torch::tensor(3)); }),
            "attend::key_lengths: lengths: expected int64 or int32 [B], got int64 []");
  using Make = Mask (*)(const torch::Tensor& lengths);
  for (const auto& [name, make] :
       {std::pair<std::string, Make>("key_lengths", key_lengths), {"prefix", prefix}}) {
    const auto of_function = c10::str("attend::", name, ": lengths: expected ");
    EXPECT_EQ(error_of([&] { make({}); }), of_function + "a tensor, got an undefined tensor");
    EXPECT_EQ(params_error({.mask = make(torch::tensor({5, 4}).to(torch::kMeta))}),
              c10::str("attend::attention: ", name,
                       ": expected a tensor with data, since the query is on cpu, got int64 [2] on "
                       "meta"));
  }
  EXPECT_EQ(error_of([] { documents({}); }),
            "attend::documents: document_ids: expected a tensor, got an undefined tensor");
  EXPECT_EQ(params_error({.mask = documents(torch::zeros({5}, torch::kInt).to(torch::kMeta))}),
            "attend::attention: document_ids: expected a tensor with data, since the query is on cpu, got "
            "int64 [5] on meta");
  EXPECT_EQ(params_error({.mask = key_lengths(torch::tensor({5, 5, 5}))}),
            "attend::attention: key_lengths: expected one length per batch element, [2], got int64 [3]");
  EXPECT_EQ(params_error({.mask = causal() & key_lengths(torch::tensor({5, 6}))}),
            "attend::attention: key_lengths: expected lengths in 0 ... 5, got 6 for batch element 1");
  EXPECT_EQ(params_error({.mask = key_lengths(torch::tensor({-1, 5}))}),
            "attend::attention: key_lengths: expected lengths in 0 ... 5, got -1 for batch element 0");
  EXPECT_EQ(error_of([] { prefix(zeros({2})); }),
            "attend::prefix: lengths: expected int64 or int32 [B], got float32 [2]");
  EXPECT_EQ(params_error({.mask = causal() | prefix(torch::tensor({0, 6}))}),
            "attend::attention: prefix: expected lengths in 0 ... 5, got 6 for batch element 1");
  EXPECT_EQ(error_of([] { documents(zeros({2, 5})); }),
            "attend::documents: document_ids: expected int64 or int32 [Lk] or [B, Lk], got float32 [2, 5]");
  EXPECT_EQ(params_error({.mask = documents(torch::tensor({0, 0, 1, 1}))}),
            "attend::attention: document_ids: expected one id per key, [5] or [2, 5], got int64 [4]");
  EXPECT_EQ(params_error({.mask = torch::ones({4, 6}, torch::kBool)}),
            "attend::attention: mask: expected a shape that broadcasts to the scores [2, 3, 4, 5], got bool "
            "[4, 6]");
  EXPECT_EQ(params_error({.mask = ~Mask(torch::ones({1, 2, 3, 4, 5}, torch::kBool))}),
            "attend::attention: mask: expected a shape that broadcasts to the scores [2, 3, 4, 5], got bool "
            "[1, 2, 3, 4, 5]");
  EXPECT_EQ(attention_error(zeros({2, 4, 8}), zeros({2, 5, 8}), zeros({2, 5, 6}),
                            {.mask = torch::ones({3, 4, 5}, torch::kBool)}),
            "attend::attention: mask: expected a shape that broadcasts to the scores [2, 4, 5], got bool [3, "
            "4, 5]");
  EXPECT_EQ(attention_error(zeros({4, 8}), zeros({5, 8}), zeros({5, 6}),
                            {.mask = torch::ones({5}, torch::kBool) | Mask(torch::ones({4}, torch::kBool))}),
            "attend::attention: mask: expected a shape that broadcasts to the scores [4, 5], got bool [4]");
  EXPECT_EQ(params_error({.mask = torch::ones({4, 5}, torch::kBool).to(torch::kMeta)}),
            "attend::attention: mask: expected a tensor on the query's device cpu, got meta");
}

TEST(Errors, Bias) {
  EXPECT_EQ(error_of([] { bias({}); }), "attend::bias: values: expected a tensor, got an undefined tensor");
  EXPECT_EQ(error_of([] { bias(zeros({4, 5}, torch::kBool)); }),
            "attend::bias: values: expected dtype float64, float32, bfloat16 or float16, got bool [4, 5]");
  EXPECT_EQ(params_error({.score_mod = bias(zeros({4, 4}))}),
            "attend::attention: bias: expected a shape that broadcasts to the scores [2, 3, 4, 5], got "
            "float32 [4, 4]");
  EXPECT_EQ(params_error({.score_mod = bias(zeros({4, 5}, torch::kDouble))}),
            "attend::attention: bias: expected the query's dtype or float32, got float64 [4, 5]");
  EXPECT_EQ(params_error({.score_mod = bias(zeros({4, 5}).to(torch::kMeta))}),
            "attend::attention: bias: expected a tensor on the query's device cpu, got meta");
}

TEST(Errors, NameTheFunction) {
  EXPECT_EQ(error_of([] { attention_with_lse(zeros({4, 8}), zeros({5, 7}), zeros({5, 6})); }),
            "attend::attention_with_lse: key: expected the query's last dimension, 8, got float32 [5, 7]");
  EXPECT_EQ(error_of([] { attention_weights(zeros({4, 8}), zeros({5, 7})); }),
            "attend::attention_weights: key: expected the query's last dimension, 8, got float32 [5, 7]");
  EXPECT_EQ(error_of([] {
              attention_with_lse(zeros({4, 8}), zeros({5, 8}), zeros({5, 6}), {.weighting = Weighting::relu});
            }),
            "attend::attention_with_lse: weighting: expected softmax, the only weighting with a logsumexp, "
            "got relu");
  EXPECT_EQ(error_of([] {
              attention_with_lse(zeros({4, 8}), zeros({5, 8}), zeros({5, 6}),
                                 {.weighting = Weighting::sigmoid});
            }),
            "attend::attention_with_lse: weighting: expected softmax, the only weighting with a logsumexp, "
            "got sigmoid");
}

TEST(Errors, Slopes) {
  EXPECT_EQ(error_of([] { alibi(torch::tensor({1, 2})); }),
            "attend::alibi: slopes: expected dtype float64, float32, bfloat16 or float16, got int64 [2]");
  EXPECT_EQ(error_of([] { alibi(zeros({1, 2, 3})); }),
            "attend::alibi: slopes: expected [H] or [B, H], got float32 [1, 2, 3]");
  EXPECT_EQ(params_error({.score_mod = alibi(zeros({4}))}),
            "attend::attention: slopes: expected one per head, [3] or [2, 3], got float32 [4]");
  EXPECT_EQ(params_error({.score_mod = alibi(zeros({3}, torch::kDouble))}),
            "attend::attention: slopes: expected the query's dtype or float32, got float64 [3]");
}

TEST(Errors, LambdasOnTooManyPositions) {
  const auto many = zeros({1, 1, 1, 1}).expand({1, 1, int64_t{1} << 31, 1});
  for (const AttentionParams& params :
       {AttentionParams{.score_mod = score_mod([](auto score, Position) { return score; })},
        AttentionParams{.mask = mask_mod([](Position) { return true; })}}) {
    EXPECT_EQ(attention_error(zeros({1, 1, 3, 1}), many, many, params),
              c10::str("attend::attention: ", params.mask.defined() ? "mask_mod" : "score_mod",
                       ": expected at most 2147483647 queries and keys, got 3 and 2147483648"));
  }
}

TEST(Errors, RelativeBias) {
  EXPECT_EQ(error_of([] { relative_bias({}); }),
            "attend::relative_bias: table: expected a tensor, got an undefined tensor");
  EXPECT_EQ(error_of([] { relative_bias(zeros({32, 3}, torch::kLong)); }),
            "attend::relative_bias: table: expected dtype float64, float32, bfloat16 or float16, got int64 "
            "[32, 3]");
  EXPECT_EQ(error_of([] { relative_bias(zeros({16, 3})); }),
            "attend::relative_bias: table: expected [num_buckets, H], of 32 buckets, got float32 [16, 3]");
  EXPECT_EQ(error_of([] { relative_bias(zeros({32, 3}), {.max_distance = 8}); }),
            "attend::relative_bias: max_distance: expected more than the 8 distances that have a bucket "
            "each, got 8");
  EXPECT_EQ(params_error({.score_mod = relative_bias(zeros({32, 4}))}),
            "attend::attention: table: expected one column per head, [32, 3], got float32 [32, 4]");
  EXPECT_EQ(params_error({.score_mod = relative_bias(zeros({32, 3}, torch::kDouble))}),
            "attend::attention: table: expected the query's dtype or float32, got float64 [32, 3]");
  EXPECT_EQ(params_error({.score_mod = relative_bias(zeros({32, 3}).to(torch::kMeta))}),
            "attend::attention: table: expected a tensor on the query's device cpu, got meta");
}

TEST(Errors, Sinks) {
  EXPECT_EQ(params_error({.sinks = zeros({4})}),
            "attend::attention: sinks: expected one per head, [3], got float32 [4]");
  EXPECT_EQ(params_error({.sinks = zeros({1, 3})}),
            "attend::attention: sinks: expected one per head, [3], got float32 [1, 3]");
  EXPECT_EQ(params_error({.sinks = zeros({3}, torch::kDouble)}),
            "attend::attention: sinks: expected the query's dtype or float32, got float64 [3]");
  EXPECT_EQ(params_error({.sinks = zeros({3}).to(torch::kMeta)}),
            "attend::attention: sinks: expected a tensor on the query's device cpu, got meta");
  EXPECT_EQ(params_error({.weighting = Weighting::relu, .sinks = zeros({3})}),
            "attend::attention: weighting: expected softmax, whose denominator includes the sinks, got relu");
}

TEST(Errors, Softcap) {
  for (const double cap : {0.0, -1.0, 1e-40, 1e39}) {
    EXPECT_EQ(
        error_of([=] { softcap(cap); }),
        c10::str("attend::softcap: cap: expected a positive number in the range of float32, got ", cap));
  }
  EXPECT_EQ(error_of([] { softcap(NAN); }),
            "attend::softcap: cap: expected a positive number in the range of float32, got nan");
}

TEST(Errors, HoldThePartsOfTheirMessage) {
  try {
    attention(zeros({4, 8}), zeros({5, 7}), zeros({5, 6}));
    FAIL() << "no error was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.function(), "attention");
    EXPECT_EQ(error.path(), "");
    EXPECT_EQ(error.argument(), "key");
    EXPECT_EQ(error.expected(), "the query's last dimension, 8");
    EXPECT_EQ(error.got(), "float32 [5, 7]");
    EXPECT_STREQ(error.what_without_backtrace(),
                 "attend::attention: key: expected the query's last dimension, 8, got float32 [5, 7]");
  }
}

TEST(Errors, OfASubmoduleNameTheCallerAndThePath) {
  const Error inner("nn::Inner", "key", "a", "b");
  const auto middle = inner.raised_in("nn::Middle", "layers.3", "memory");
  EXPECT_STREQ(middle.what_without_backtrace(), "attend::nn::Middle: layers.3: memory: expected a, got b");
  const auto outer = middle.raised_in("nn::Outer", "decoder", "src");
  EXPECT_STREQ(outer.what_without_backtrace(), "attend::nn::Outer: decoder.layers.3: src: expected a, got b");
  EXPECT_EQ(outer.path(), "decoder.layers.3");
  EXPECT_STREQ(outer.raised_in("function", "", "x").what_without_backtrace(),
               "attend::function: decoder.layers.3: x: expected a, got b");
}

}  // namespace
}  // namespace attend::testing
