// Tests generation with models that are tables, so that every distribution is known and every continuation
// can be enumerated.
#include <attend/generation.h>
#include <attend/nn/transformer.h>

#include <map>

#include "support.h"

namespace attend::testing {
namespace {

using History = std::vector<int64_t>;

/// A model that assigns random logits to each history at its first occurrence.
class TableModel {
 public:
  explicit TableModel(int64_t vocabulary) : vocabulary_(vocabulary) {}

  TokenModel model() {
    return {.logits =
                [this](const torch::Tensor& tokens, const torch::Tensor& lengths) {
                  if (histories_.empty()) histories_.resize(static_cast<size_t>(tokens.size(0)));
                  std::vector<torch::Tensor> rows;
                  for (int64_t b = 0; b < tokens.size(0); ++b) {
                    auto& history = histories_.at(static_cast<size_t>(b));
                    const int64_t first = lengths.defined() ? tokens.size(1) - lengths[b].item<int64_t>() : 0;
                    for (int64_t l = first; l < tokens.size(1); ++l)
                      history.push_back(tokens[b][l].item<int64_t>());
                    rows.push_back(logits_after(history));
                  }
                  return torch::stack(rows);
                },
            .select =
                [this](const torch::Tensor& sequences) {
                  std::vector<History> chosen;
                  for (int64_t b = 0; b < sequences.size(0); ++b)
                    chosen.push_back(histories_.at(static_cast<size_t>(sequences[b].item<int64_t>())));
                  histories_ = chosen;
                }};
  }

  torch::Tensor logits_after(const History& history) {
    auto& logits = table_[history];
    if (!logits.defined()) logits = 2 * torch::randn({vocabulary_}, torch::kDouble);
    return logits;
  }

  double log_probability(const History& history, int64_t token) {
    return torch::log_softmax(logits_after(history), -1)[token].item<double>();
  }

  void reset() { histories_.clear(); }

 private:
  int64_t vocabulary_;
  std::map<History, torch::Tensor> table_;
  std::vector<History> histories_;
};

class GenerationTest : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TEST_F(GenerationTest, GreedyTakesTheMostLikelyToken) {
  TableModel table(5);
  const auto prompt = torch::tensor({{1, 2}, {3, 0}});
  const auto [tokens, log_probability] = generate(table.model(), prompt, {.max_new_tokens = 6});
  ASSERT_EQ(tokens.sizes(), (std::vector<int64_t>{2, 6}));
  for (int64_t b = 0; b < 2; ++b) {
    History history = {prompt[b][0].item<int64_t>(), prompt[b][1].item<int64_t>()};
    double total = 0;
    for (int64_t n = 0; n < 6; ++n) {
      const auto token = table.logits_after(history).argmax().item<int64_t>();
      EXPECT_EQ(tokens[b][n].item<int64_t>(), token);
      total += table.log_probability(history, token);
      history.push_back(token);
    }
    EXPECT_NEAR(log_probability[b].item<double>(), total, 1e-12);
  }
}

TEST_F(GenerationTest, StopsAfterEosTokenId) {
  TableModel table(4);
  const auto prompt = torch::tensor({{0}, {1}, {2}, {3}});
  const auto free = generate(table.model(), prompt, {.max_new_tokens = 12}).tokens;
  table.reset();
  const auto stopped = generate(table.model(), prompt, {.max_new_tokens = 12, .eos_token_id = 2});
  for (int64_t b = 0; b < 4; ++b) {
    bool is_complete = false;
    for (int64_t n = 0; n < stopped.tokens.size(1); ++n) {
      const auto token = stopped.tokens[b][n].item<int64_t>();
      EXPECT_EQ(token, is_complete ? 2 : free[b][n].item<int64_t>());
      is_complete = is_complete || token == 2;
    }
    EXPECT_TRUE(is_complete || stopped.tokens.size(1) == 12);
  }
}

TEST_F(GenerationTest, PromptsDifferInLength) {
  TableModel table(5);
  const auto both = generate(table.model(), torch::tensor({{1, 2, 3}, {9, 9, 4}}), {.max_new_tokens = 4},
                             torch::tensor({3, 1}));
  table.reset();
  const auto alone = generate(table.model(), torch::tensor({{4}}), {.max_new_tokens = 4});
  EXPECT_TRUE(torch::equal(both.tokens[1], alone.tokens[0]));
}

/// The continuation with the largest score.
struct Best {
  History tokens;
  double log_probability = -INFINITY, score = -INFINITY;
};

void enumerate(TableModel& table, const History& prompt, const History& generated, double total,
               int64_t max_new_tokens, int64_t eos, double penalty, int64_t vocabulary, Best& best) {
  const bool is_complete = !generated.empty() && generated.back() == eos;
  if (is_complete || static_cast<int64_t>(generated.size()) == max_new_tokens) {
    const double score = total / std::pow(static_cast<double>(generated.size()), penalty);
    if (score > best.score) best = {generated, total, score};
    return;
  }
  auto history = prompt;
  history.insert(history.end(), generated.begin(), generated.end());
  for (int64_t token = 0; token < vocabulary; ++token) {
    auto next = generated;
    next.push_back(token);
    enumerate(table, prompt, next, total + table.log_probability(history, token), max_new_tokens, eos,
              penalty, vocabulary, best);
  }
}

TEST_F(GenerationTest, EnoughBeamsFindTheBestContinuation) {
  for (const double penalty : {-1.0, 0.0, 1.0, 2.0}) {
    TableModel table(3);
    const auto prompt = torch::tensor({{0, 1}, {2, 2}, {1, 0}});
    const auto found =
        generate(table.model(), prompt,
                 {.max_new_tokens = 4, .eos_token_id = 1, .num_beams = 27, .length_penalty = penalty});
    for (int64_t b = 0; b < 3; ++b) {
      const History history = {prompt[b][0].item<int64_t>(), prompt[b][1].item<int64_t>()};
      Best best;
      enumerate(table, history, {}, 0, 4, 1, penalty, 3, best);
      for (int64_t n = 0; n < found.tokens.size(1); ++n) {
        const auto expected =
            n < static_cast<int64_t>(best.tokens.size()) ? best.tokens[static_cast<size_t>(n)] : 1;
        EXPECT_EQ(found.tokens[b][n].item<int64_t>(), expected) << "penalty " << penalty << ", prompt " << b;
      }
      EXPECT_NEAR(found.log_probability[b].item<double>(), best.log_probability, 1e-12);
    }
  }
}

TEST_F(GenerationTest, BeamSearchBeatsGreedy) {
  TableModel table(6);
  const auto prompt = torch::tensor({{0}, {1}, {2}, {3}, {4}, {5}});
  const auto greedy = generate(table.model(), prompt, {.max_new_tokens = 6});
  table.reset();
  const auto beams = generate(table.model(), prompt, {.max_new_tokens = 6, .num_beams = 4});
  EXPECT_TRUE((beams.log_probability >= greedy.log_probability - 1e-12).all().item<bool>());
  EXPECT_TRUE((beams.log_probability > greedy.log_probability + 1e-3).any().item<bool>());
}

/// Returns the relative frequency of each token among samples of one step.
torch::Tensor frequencies(const torch::Tensor& logits, GenerationParams params) {
  constexpr int64_t kSamples = 20000;
  const TokenModel model{.logits = [&](const torch::Tensor& tokens, const torch::Tensor&) {
    return logits.expand({tokens.size(0), logits.size(0)});
  }};
  params.max_new_tokens = 1;
  const auto samples = generate(model, torch::zeros({kSamples, 1}, torch::kLong), params).tokens;
  return torch::bincount(samples.flatten(), {}, logits.size(0)).to(torch::kDouble) / kSamples;
}

TEST_F(GenerationTest, SamplesFromTheTruncatedDistribution) {
  const auto p = torch::tensor({0.1, 0.4, 0.05, 0.25, 0.2}, torch::kDouble);
  // Six standard deviations of a frequency among 20,000 samples.
  const double tolerance = 6 * std::sqrt(0.25 / 20000);
  const auto expect = [&](const GenerationParams& params, const std::vector<double>& weights) {
    const auto expected = torch::tensor(weights, torch::kDouble);
    const auto sampled = frequencies(p.log() + 3, params);
    expect_close(sampled, expected / expected.sum(), tolerance);
    EXPECT_EQ(sampled.masked_select(expected == 0).sum().item<double>(), 0);
  };
  expect({.temperature = 1}, {0.1, 0.4, 0.05, 0.25, 0.2});
  expect({.temperature = 0.5}, {0.01, 0.16, 0.0025, 0.0625, 0.04});
  expect({.temperature = 1, .top_k = 3}, {0, 0.4, 0, 0.25, 0.2});
  expect({.temperature = 1, .top_p = 0.6}, {0, 0.4, 0, 0.25, 0});
  expect({.temperature = 1, .top_p = 0.66}, {0, 0.4, 0, 0.25, 0.2});
  // After top_k, these tokens have the probabilities 0.47 and 0.29.
  expect({.temperature = 1, .top_k = 3, .top_p = 0.7}, {0, 0.4, 0, 0.25, 0});
  expect({.temperature = 1, .top_p = 0.01}, {0, 1, 0, 0, 0});
}

TEST_F(GenerationTest, TheGeneratorDeterminesTheSamples) {
  TableModel table(5);
  const auto prompt = torch::tensor({{1}, {2}});
  const auto sample = [&](uint64_t seed) {
    table.reset();
    return generate(table.model(), prompt,
                    {.max_new_tokens = 20,
                     .temperature = 1,
                     .generator = at::make_generator<at::CPUGeneratorImpl>(seed)})
        .tokens;
  };
  const auto first = sample(1);
  EXPECT_TRUE(torch::equal(sample(1), first));
  EXPECT_FALSE(torch::equal(sample(2), first));
}

// ---- A decoder and its cache

TEST_F(GenerationTest, ADecoderWithACacheAgreesWithItsWholeForward) {
  constexpr int64_t kWidth = 8, kVocabulary = 11;
  auto layer = nn::TransformerLayerOptions(kWidth, 2).dim_feedforward(12).dropout(0);
  layer.attention(nn::MultiHeadAttentionOptions(kWidth, 2).rotary(RotaryParams{}));
  nn::TransformerDecoder decoder(nn::TransformerStackOptions(layer, 2).final_norm(true));
  torch::nn::Embedding embedding(kVocabulary, kWidth);
  torch::nn::Linear head(kWidth, kVocabulary);
  const auto memory = torch::randn({2, 5, kWidth});
  const torch::NoGradGuard no_grad;
  const auto prompt = torch::tensor({{1, 2}, {3, 4}});
  for (const int64_t beams : {1, 3}) {
    auto cache = decoder->make_cache(memory, 20);
    const TokenModel model{.logits =
                               [&](const torch::Tensor& tokens, const torch::Tensor& lengths) {
                                 const auto x =
                                     decoder(embedding(tokens), {}, {.lengths = lengths}, {}, &cache);
                                 return head(x.select(1, -1));
                               },
                           .select = [&](const torch::Tensor& sequences) { cache.select(sequences); }};
    const auto generated = generate(model, prompt, {.max_new_tokens = 8, .num_beams = beams});
    // One forward over all tokens must give them the returned log probability.
    const auto all = torch::cat({prompt, generated.tokens}, 1);
    const auto logits = head(decoder(embedding(all), memory, {.mask = causal()}));
    const auto log_probability = torch::log_softmax(logits.to(torch::kDouble), -1)
                                     .slice(1, 1, -1)
                                     .gather(-1, generated.tokens.unsqueeze(-1))
                                     .sum({1, 2});
    expect_close(generated.log_probability, log_probability, 1e-5);
    if (beams > 1) continue;
    EXPECT_TRUE(torch::equal(logits.slice(1, 1, -1).argmax(-1), generated.tokens));
  }
}

TEST_F(GenerationTest, TheLowestTemperatureSamplesAToken) {
  const auto prompt = torch::tensor({{1}, {2}});
  TableModel greedy(5);
  const auto most_likely = generate(greedy.model(), prompt, {.max_new_tokens = 4}).tokens;
  torch::manual_seed(0);
  TableModel sampled(5);
  const auto coldest = generate(sampled.model(), prompt, {.max_new_tokens = 4, .temperature = 1e-309}).tokens;
  EXPECT_EQ(coldest.sizes(), most_likely.sizes());
}

TEST_F(GenerationTest, ErrorsNameTheParameter) {
  TableModel table(5);
  const auto prompt = torch::tensor({{1}});
  const auto error = [&](const GenerationParams& params) {
    return error_of([&] { generate(table.model(), prompt, params); });
  };
  EXPECT_EQ(error({.max_new_tokens = -1}), "attend::generate: max_new_tokens: expected at least 0, got -1");
  EXPECT_EQ(error({.temperature = -1}),
            "attend::generate: temperature: expected a finite value of at least 0, got -1");
  EXPECT_EQ(error({.top_k = -1}), "attend::generate: top_k: expected at least 0, got -1");
  EXPECT_EQ(error({.top_p = 0}), "attend::generate: top_p: expected a probability in (0, 1], got 0");
  for (const auto& params : {GenerationParams{.top_k = 5}, GenerationParams{.top_p = 0.9}}) {
    EXPECT_EQ(error(params),
              "attend::generate: temperature: expected more than 0 with top_k or top_p, got 0");
  }
  EXPECT_EQ(error({.num_beams = 0}), "attend::generate: num_beams: expected at least 1, got 0");
  EXPECT_EQ(error({.temperature = 1, .num_beams = 2}),
            "attend::generate: num_beams: expected 1 with a temperature, got 2");
  EXPECT_EQ(error_of([&] { generate({}, prompt); }),
            "attend::generate: model.logits: expected a function, got none");
  const TokenModel wrong{.logits = [](const auto&, const auto&) { return torch::zeros({5}); }};
  EXPECT_EQ(error_of([&] { generate(wrong, prompt, {.num_beams = 2}); }),
            "attend::generate: model.select: expected a function, for beam search, got none");
  EXPECT_EQ(error_of([&] { generate(wrong, prompt); }),
            "attend::generate: logits: expected [1, V], got float32 [5]");
  const TokenModel not_a_number{.logits = [](const auto&, const auto&) { return torch::full({1, 5}, NAN); }};
  EXPECT_EQ(error_of([&] { generate(not_a_number, prompt); }),
            "attend::generate: logits: expected at least one finite element in each row, and no NaN, got a "
            "row whose softmax is NaN");
  EXPECT_EQ(error_of([&] { generate(table.model(), torch::tensor({1})); }),
            "attend::generate: prompt: expected int64 [B, L] with L of at least 1, got int64 [1]");
  const auto lengths_error = [&](const torch::Tensor& lengths) {
    return error_of([&] { generate(table.model(), torch::tensor({{1, 2}, {3, 4}}), {}, lengths); });
  };
  EXPECT_EQ(lengths_error(torch::tensor({2, 0})), "attend::generate: lengths: expected 1 ... 2, got 0 ... 2");
  EXPECT_EQ(lengths_error(torch::tensor({3, 1})), "attend::generate: lengths: expected 1 ... 2, got 1 ... 3");
  EXPECT_EQ(lengths_error(torch::tensor({1})),
            "attend::generate: lengths: expected int64 [2], got int64 [1]");
}

TEST_F(GenerationTest, NoTokensAreGeneratedWithAMaximumOfZero) {
  const TokenModel uncalled{.logits = [](const auto&, const auto&) -> torch::Tensor {
                              throw std::logic_error("the model must not be called");
                            },
                            .select = [](const auto&) {}};
  for (const int64_t beams : {1, 3}) {
    const auto [tokens, log_probability] =
        generate(uncalled, torch::tensor({{1}, {2}}), {.max_new_tokens = 0, .num_beams = beams});
    EXPECT_EQ(tokens.sizes(), (std::vector<int64_t>{2, 0}));
    EXPECT_TRUE(torch::equal(log_probability, torch::zeros(2, torch::kDouble)));
  }
}

}  // namespace
}  // namespace attend::testing
