// Tests the parameters that change the choice of tokens, against transformers (recorded by
// tests/record/record_generation.py) and distributions that are computed by hand. The model is a table, of
// which the last token selects a row of logits.
#include <attend/generation.h>

#include "recorded.h"
#include "support.h"

namespace attend::testing {
namespace {

class Processing : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TokenModel table_model(const torch::Tensor& table) {
  return {.logits = [=](const torch::Tensor& tokens,
                        const torch::Tensor&) { return table.index_select(0, tokens.select(1, -1)); },
          .select = [](const torch::Tensor&) {}};
}

GenerationParams recorded_params(const Recorded& recorded) {
  const auto& eos = recorded.at("eos_token_id");
  GenerationParams params{.max_new_tokens = 8,
                          .pad_token_id = recorded.at("pad_token_id").item<int64_t>(),
                          .min_new_tokens = recorded.at("min_new_tokens").item<int64_t>(),
                          .repetition_penalty = recorded.at("repetition_penalty").item<double>(),
                          .num_beams = recorded.at("num_beams").item<int64_t>(),
                          .length_penalty = recorded.at("length_penalty").item<double>()};
  params.eos_token_id = std::vector<int64_t>(eos.data_ptr<int64_t>(), eos.data_ptr<int64_t>() + eos.numel());
  return params;
}

/// Returns the log probability that the table assigns to the tokens up to the first one that ends the
/// sequence.
double log_probability_of(const torch::Tensor& table, int64_t last, const torch::Tensor& tokens,
                          const std::vector<int64_t>& eos) {
  double total = 0;
  for (int64_t n = 0; n < tokens.size(0); ++n) {
    const auto token = tokens[n].item<int64_t>();
    total += torch::log_softmax(table[last], 0)[token].item<double>();
    if (std::ranges::find(eos, token) != eos.end()) break;
    last = token;
  }
  return total;
}

TEST_F(Processing, GeneratesAsTransformers) {
  int count = 0;
  for (const auto& [name, recorded] : recorded_cases("generation.safetensors")) {
    if (!recorded.contains("table")) continue;
    SCOPED_TRACE(name);
    const auto &table = recorded.at("table"), &prompt = recorded.at("prompt"),
               &tokens = recorded.at("tokens");
    const auto params = recorded_params(recorded);
    const auto found = generate(table_model(table), prompt, params);
    EXPECT_TRUE(torch::equal(found.tokens, tokens)) << found.tokens << tokens;
    for (int64_t b = 0; b < prompt.size(0); ++b) {
      EXPECT_NEAR(
          found.log_probability[b].item<double>(),
          log_probability_of(table, prompt[b][-1].item<int64_t>(), tokens[b], params.eos_token_id.ids),
          1e-12);
    }
    ++count;
  }
  EXPECT_EQ(count, 11);
}

/// Returns the relative frequency of each token among samples of one step.
torch::Tensor frequencies(const torch::Tensor& logits, GenerationParams params) {
  constexpr int64_t kSamples = 20000;
  params.max_new_tokens = 1;
  const auto samples =
      generate(table_model(logits.unsqueeze(0)), torch::zeros({kSamples, 1}, torch::kLong), params).tokens;
  return torch::bincount(samples.flatten(), {}, logits.size(0)).to(torch::kDouble) / kSamples;
}

/// Six standard deviations of a frequency among 20,000 samples.
const double kTolerance = 6 * std::sqrt(0.25 / 20000);

TEST_F(Processing, SamplesFromTheDistributionOfTransformers) {
  int count = 0;
  for (const auto& [name, recorded] : recorded_cases("generation.safetensors")) {
    if (!recorded.contains("probabilities")) continue;
    SCOPED_TRACE(name);
    const auto params = recorded.at("params");
    const auto& expected = recorded.at("probabilities");
    const auto sampled =
        frequencies(recorded.at("logits"), {.temperature = params[0].item<double>(),
                                            .top_k = params[1].to(torch::kLong).item<int64_t>(),
                                            .top_p = params[2].item<double>(),
                                            .min_p = params[3].item<double>()});
    expect_close(sampled, expected, kTolerance);
    EXPECT_EQ(sampled.masked_select(expected == 0).sum().item<double>(), 0);
    ++count;
  }
  EXPECT_EQ(count, 4);
}

TEST_F(Processing, TopPKeepsTheSmallestSet) {
  const auto expect = [](const std::vector<double>& probabilities, double top_p,
                         const std::vector<double>& kept) {
    for (const double shift : {0.0, 3.0, -20.0}) {
      const auto logits = torch::tensor(probabilities, torch::kDouble).log() + shift;
      const auto expected = torch::tensor(kept, torch::kDouble);
      const auto sampled = frequencies(logits, {.temperature = 1, .top_p = top_p});
      expect_close(sampled, expected / expected.sum(), kTolerance);
      EXPECT_EQ(sampled.masked_select(expected == 0).sum().item<double>(), 0) << top_p;
    }
  };
  expect({.3, .1, .1, .5}, 0.8, {.3, 0, 0, .5});
  expect({.6, .3, .1}, 0.9, {.6, .3, 0});
  expect({.6, .3, .1}, 0.6, {.6, 0, 0});
  expect({.6, .3, .1}, 0.6 + 1e-9, {.6, .3, 0});
  expect({.25, .25, .25, .25}, 0.5, {.25, .25, 0, 0});
  expect({.1, .2, .3, .4}, 0.7, {0, 0, .3, .4});
  expect({.1, .2, .3, .4}, 0.9, {0, .2, .3, .4});
}

TEST_F(Processing, MinPKeepsWhatIsLikelyEnough) {
  const auto logits = torch::tensor({.5, .25, .15, .1}, torch::kDouble).log();
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .min_p = 0.5}).count_nonzero().item<int64_t>(), 2);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .min_p = 0.51}).count_nonzero().item<int64_t>(), 1);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .min_p = 1}).count_nonzero().item<int64_t>(), 1);
  EXPECT_EQ(frequencies(logits, {.temperature = 1, .min_p = 0.2}).count_nonzero().item<int64_t>(), 4);
}

TEST_F(Processing, PaddingIsNotPenalised) {
  const auto table = torch::zeros({4, 4}, torch::kDouble) + torch::tensor({1.0, 3.0, 2.0, 0.5});
  const GenerationParams params{.max_new_tokens = 1, .repetition_penalty = 4};
  // Token 1 is padding in the second prompt, but a token in the first.
  const auto prompt = torch::tensor({{1, 0}, {1, 0}});
  const auto tokens = generate(table_model(table), prompt, params, torch::tensor({2, 1})).tokens;
  EXPECT_TRUE(torch::equal(tokens, torch::tensor({{2}, {1}})));
  // Padding need not be a token of the vocabulary.
  const auto others =
      generate(table_model(table), torch::tensor({{-100, 0}}), params, torch::tensor({1})).tokens;
  EXPECT_EQ(others.item<int64_t>(), 1);
  EXPECT_EQ(error_of([&] { generate(table_model(table), torch::tensor({{9, 0}}), params); }),
            "attend::generate: prompt: expected tokens in 0 ... 3, with a repetition penalty, got 0 ... 9");
}

TEST_F(Processing, ProcessorsAreFunctions) {
  const auto table = torch::randn({5, 5}, torch::kDouble);
  const auto prompt = torch::tensor({{1, 2}, {3, 4}});
  for (const int64_t beams : {1, 3}) {
    std::vector<int64_t> lengths;
    const LogitsProcessor only_next = [&](const torch::Tensor& tokens, torch::Tensor scores) {
      lengths.push_back(tokens.size(1));
      const auto next = (tokens.slice(1, -1) + 1).remainder(5);
      return torch::full_like(scores, -INFINITY).scatter_(1, next, scores.gather(1, next));
    };
    const LogitsProcessor halved = [](const torch::Tensor&, torch::Tensor scores) {
      return scores.mul_(0.5);
    };
    const auto found =
        generate(table_model(table), prompt,
                 {.max_new_tokens = 4, .logits_processor = {halved, only_next}, .num_beams = beams});
    EXPECT_TRUE(torch::equal(found.tokens, torch::tensor({{3, 4, 0, 1}, {0, 1, 2, 3}})));
    EXPECT_EQ(lengths, (std::vector<int64_t>{2, 3, 4, 5}));
    EXPECT_NEAR(found.log_probability[0].item<double>(), log_probability_of(table, 2, found.tokens[0], {}),
                1e-12);
  }
}

TEST_F(Processing, TheStreamerGetsEveryTokenAndCanStop) {
  const auto table = torch::randn({5, 5}, torch::kDouble);
  const auto prompt = torch::tensor({{1, 2}, {3, 4}});
  for (const double temperature : {0.0, 1.0}) {
    std::vector<torch::Tensor> steps;
    const auto found = generate(
        table_model(table), prompt,
        {.max_new_tokens = 6, .temperature = temperature, .streamer = [&](const torch::Tensor& tokens) {
           steps.push_back(tokens.clone());
           return steps.size() < 4;
         }});
    EXPECT_EQ(found.tokens.sizes(), (std::vector<int64_t>{2, 4}));
    EXPECT_TRUE(torch::equal(torch::stack(steps, 1), found.tokens));
  }
  // An exception of the callback reaches the caller.
  EXPECT_THROW(generate(table_model(table), prompt,
                        {.streamer = [](const auto&) -> bool { throw std::runtime_error("closed"); }}),
               std::runtime_error);
}

TEST_F(Processing, OneOrSeveralTokensEndASequence) {
  const auto table = torch::eye(4).roll(1, 1);
  const auto end = [&](const TokenIds& eos) {
    return generate(table_model(table), torch::tensor({{0}, {1}}), {.max_new_tokens = 6, .eos_token_id = eos})
        .tokens;
  };
  EXPECT_TRUE(torch::equal(end({}), torch::tensor({{1, 2, 3, 0, 1, 2}, {2, 3, 0, 1, 2, 3}})));
  EXPECT_TRUE(torch::equal(end(3), torch::tensor({{1, 2, 3}, {2, 3, 3}})));
  EXPECT_TRUE(torch::equal(end({3}), torch::tensor({{1, 2, 3}, {2, 3, 3}})));
  EXPECT_TRUE(torch::equal(end({2, 3}), torch::tensor({{1, 2}, {2, 2}})));
}

TEST_F(Processing, ErrorsNameTheParameter) {
  const auto table = torch::randn({5, 5}, torch::kDouble);
  const auto prompt = torch::tensor({{1}});
  const auto error = [&](const GenerationParams& params) {
    return error_of([&] { generate(table_model(table), prompt, params); });
  };
  const std::string name = "attend::generate: ";
  EXPECT_EQ(error({.eos_token_id = {1, -2}}), name + "eos_token_id: expected tokens of at least 0, got -2");
  EXPECT_EQ(error({.max_new_tokens = 3, .min_new_tokens = 4}),
            name + "min_new_tokens: expected 0 ... 3, max_new_tokens, got 4");
  EXPECT_EQ(error({.min_new_tokens = -1}),
            name + "min_new_tokens: expected 0 ... 64, max_new_tokens, got -1");
  for (const double penalty : {0.0, -1.0}) {
    EXPECT_EQ(error({.repetition_penalty = penalty}),
              name + c10::str("repetition_penalty: expected a finite value above 0, got ", penalty));
  }
  EXPECT_EQ(error({.temperature = 1, .min_p = 1.5}), name + "min_p: expected a value in [0, 1], got 1.5");
  EXPECT_EQ(error({.min_p = 0.1}), name + "temperature: expected more than 0 with min_p, got 0");
  EXPECT_EQ(error({.logits_processor = {{}}}), name + "logits_processor: expected functions, got none");
  EXPECT_EQ(error({.num_beams = 2, .streamer = [](const auto&) { return true; }}),
            name + "streamer: expected none with beam search, got one");
  EXPECT_EQ(error({.logits_processor = {[](const auto&, const auto&) { return torch::zeros({2}); }}}),
            name + "logits_processor: expected scores [1, 5], got float32 [2]");
  EXPECT_EQ(error({.logits_processor = {[](const auto&, const auto& scores) { return scores - INFINITY; }}}),
            name +
                "logits_processor: expected at least one finite score in each row, and no NaN or infinity, "
                "got a row without a token to choose");
}

}  // namespace
}  // namespace attend::testing
