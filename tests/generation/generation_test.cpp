// Generation with models that are tables: every continuation can be enumerated, and every distribution is
// known.
#include <attend/generation.h>
#include <attend/nn/transformer.h>

#include <map>

#include "support.h"

namespace attend::testing {
namespace {

using History = std::vector<int64_t>;

/// A model whose distribution of the next token is a table, drawn anew for each history.
class TableModel {
 public:
  explicit TableModel(int64_t vocabulary) : vocabulary_(vocabulary) {}

  TokenModel model() {
    return {.logits =
                [this](const torch::Tensor& tokens, const torch::Tensor& counts) {
                  if (histories_.empty()) histories_.resize(static_cast<size_t>(tokens.size(0)));
                  std::vector<torch::Tensor> rows;
                  for (int64_t b = 0; b < tokens.size(0); ++b) {
                    auto& history = histories_.at(static_cast<size_t>(b));
                    const int64_t first = counts.defined() ? tokens.size(1) - counts[b].item<int64_t>() : 0;
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

  void forget() { histories_.clear(); }

 private:
  int64_t vocabulary_;
  std::map<History, torch::Tensor> table_;
  std::vector<History> histories_;
};

class GenerationTest : public ::testing::Test {
 protected:
  void SetUp() override { torch::manual_seed(0); }
};

TEST_F(GenerationTest, GreedyTakesTheLikeliest) {
  TableModel table(5);
  const auto prompt = torch::tensor({{1, 2}, {3, 0}});
  const auto [tokens, log_probability] = generate(table.model(), prompt, {.max_tokens = 6});
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

TEST_F(GenerationTest, StopsAfterTheEndToken) {
  TableModel table(4);
  const auto prompt = torch::tensor({{0}, {1}, {2}, {3}});
  const auto free = generate(table.model(), prompt, {.max_tokens = 12}).tokens;
  table.forget();
  const auto stopped = generate(table.model(), prompt, {.max_tokens = 12, .end_token = 2});
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

TEST_F(GenerationTest, PromptsMayDifferInLength) {
  TableModel together(5);
  const auto both = generate(together.model(), torch::tensor({{1, 2, 3}, {9, 9, 4}}), {.max_tokens = 4},
                             torch::tensor({3, 1}));
  together.forget();
  const auto alone = generate(together.model(), torch::tensor({{4}}), {.max_tokens = 4});
  EXPECT_TRUE(torch::equal(both.tokens[1], alone.tokens[0]));
}

/// The best continuation of all that there are, by its score.
struct Best {
  History tokens;
  double log_probability = -INFINITY, score = -INFINITY;
};

void enumerate(TableModel& table, const History& prompt, const History& written, double total,
               int64_t max_tokens, int64_t end, double penalty, int64_t vocabulary, Best& best) {
  const bool is_complete = !written.empty() && written.back() == end;
  if (is_complete || static_cast<int64_t>(written.size()) == max_tokens) {
    const double score = total / std::pow(static_cast<double>(written.size()), penalty);
    if (score > best.score) best = {written, total, score};
    return;
  }
  auto history = prompt;
  history.insert(history.end(), written.begin(), written.end());
  for (int64_t token = 0; token < vocabulary; ++token) {
    auto next = written;
    next.push_back(token);
    enumerate(table, prompt, next, total + table.log_probability(history, token), max_tokens, end, penalty,
              vocabulary, best);
  }
}

TEST_F(GenerationTest, EnoughBeamsFindTheBestOfAll) {
  for (const double penalty : {-1.0, 0.0, 1.0, 2.0}) {
    TableModel table(3);
    const auto prompt = torch::tensor({{0, 1}, {2, 2}, {1, 0}});
    const auto found = generate(table.model(), prompt,
                                {.max_tokens = 4, .end_token = 1, .beams = 27, .length_penalty = penalty});
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

TEST_F(GenerationTest, MoreBeamsAreNeverWorseThanGreedyHere) {
  TableModel table(6);
  const auto prompt = torch::tensor({{0}, {1}, {2}, {3}, {4}, {5}});
  const auto greedy = generate(table.model(), prompt, {.max_tokens = 6});
  table.forget();
  const auto beams = generate(table.model(), prompt, {.max_tokens = 6, .beams = 4});
  EXPECT_TRUE((beams.log_probability >= greedy.log_probability - 1e-12).all().item<bool>());
  EXPECT_TRUE((beams.log_probability > greedy.log_probability + 1e-3).any().item<bool>());
}

/// How often each token is drawn, over the draws of one step.
torch::Tensor frequencies(const torch::Tensor& logits, GenerationParams params) {
  constexpr int64_t kDraws = 20000;
  const TokenModel model{.logits = [&](const torch::Tensor& tokens, const torch::Tensor&) {
    return logits.expand({tokens.size(0), logits.size(0)});
  }};
  params.max_tokens = 1;
  const auto drawn = generate(model, torch::zeros({kDraws, 1}, torch::kLong), params).tokens;
  return torch::bincount(drawn.flatten(), {}, logits.size(0)).to(torch::kDouble) / kDraws;
}

TEST_F(GenerationTest, DrawsFromTheDistributionThatIsLeft) {
  const auto p = torch::tensor({0.1, 0.4, 0.05, 0.25, 0.2}, torch::kDouble);
  // Six standard deviations of a frequency over 20,000 draws.
  const double tolerance = 6 * std::sqrt(0.25 / 20000);
  const auto expect = [&](const GenerationParams& params, const std::vector<double>& weights) {
    const auto expected = torch::tensor(weights, torch::kDouble);
    const auto drawn = frequencies(p.log() + 3, params);
    expect_close(drawn, expected / expected.sum(), tolerance);
    EXPECT_EQ(drawn.masked_select(expected == 0).sum().item<double>(), 0);
  };
  expect({.temperature = 1}, {0.1, 0.4, 0.05, 0.25, 0.2});
  expect({.temperature = 0.5}, {0.01, 0.16, 0.0025, 0.0625, 0.04});
  expect({.temperature = 1, .top_k = 3}, {0, 0.4, 0, 0.25, 0.2});
  expect({.temperature = 1, .top_p = 0.6}, {0, 0.4, 0, 0.25, 0});
  expect({.temperature = 1, .top_p = 0.66}, {0, 0.4, 0, 0.25, 0.2});
  expect({.temperature = 1, .top_k = 3, .top_p = 0.7},
         {0, 0.4, 0, 0.25, 0});  // 0.47 and 0.29 of what is left
  expect({.temperature = 1, .top_p = 0.01}, {0, 1, 0, 0, 0});
}

TEST_F(GenerationTest, AGeneratorDecides) {
  TableModel table(5);
  const auto prompt = torch::tensor({{1}, {2}});
  const auto draw = [&](uint64_t seed) {
    table.forget();
    return generate(table.model(), prompt,
                    {.max_tokens = 20,
                     .temperature = 1,
                     .generator = at::make_generator<at::CPUGeneratorImpl>(seed)})
        .tokens;
  };
  const auto first = draw(1);
  EXPECT_TRUE(torch::equal(draw(1), first));
  EXPECT_FALSE(torch::equal(draw(2), first));
}

// ---- with a decoder and its cache

TEST_F(GenerationTest, ADecoderWritesWhatItsWholeForwardSays) {
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
                               [&](const torch::Tensor& tokens, const torch::Tensor& counts) {
                                 const auto x =
                                     decoder(embedding(tokens), {}, {.counts = counts}, {}, &cache);
                                 return head(x.select(1, -1));
                               },
                           .select = [&](const torch::Tensor& sequences) { cache.select(sequences); }};
    const auto written = generate(model, prompt, {.max_tokens = 8, .beams = beams});
    // Read again as a whole, the model gives those tokens the log probability that was returned.
    const auto all = torch::cat({prompt, written.tokens}, 1);
    const auto logits = head(decoder(embedding(all), memory, {.mask = causal()}));
    const auto log_probability = torch::log_softmax(logits.to(torch::kDouble), -1)
                                     .slice(1, 1, -1)
                                     .gather(-1, written.tokens.unsqueeze(-1))
                                     .sum({1, 2});
    expect_close(written.log_probability, log_probability, 1e-5);
    if (beams > 1) continue;
    EXPECT_TRUE(torch::equal(logits.slice(1, 1, -1).argmax(-1), written.tokens));
  }
}

TEST_F(GenerationTest, TheLowestTemperatureTakesTheLikeliest) {
  const auto prompt = torch::tensor({{1}, {2}});
  TableModel greedy(5);
  const auto likeliest = generate(greedy.model(), prompt, {.max_tokens = 4}).tokens;
  torch::manual_seed(0);
  TableModel drawn(5);
  const auto coldest = generate(drawn.model(), prompt, {.max_tokens = 4, .temperature = 1e-309}).tokens;
  EXPECT_EQ(coldest.sizes(), likeliest.sizes());
}

TEST_F(GenerationTest, ErrorsNameTheParameter) {
  TableModel table(5);
  const auto prompt = torch::tensor({{1}});
  const auto error = [&](const GenerationParams& params) {
    return error_of([&] { generate(table.model(), prompt, params); });
  };
  EXPECT_EQ(error({.max_tokens = -1}), "attend::generate: max_tokens: expected at least 0, got -1");
  EXPECT_EQ(error({.temperature = -1}),
            "attend::generate: temperature: expected a number of at least 0, got -1");
  EXPECT_EQ(error({.top_k = -1}), "attend::generate: top_k: expected at least 0, got -1");
  EXPECT_EQ(error({.top_p = 0}), "attend::generate: top_p: expected a probability in (0, 1], got 0");
  for (const auto& params : {GenerationParams{.top_k = 5}, GenerationParams{.top_p = 0.9}}) {
    EXPECT_EQ(error(params),
              "attend::generate: temperature: expected more than 0 with top_k or top_p, got 0");
  }
  EXPECT_EQ(error({.beams = 0}), "attend::generate: beams: expected at least 1, got 0");
  EXPECT_EQ(error({.temperature = 1, .beams = 2}),
            "attend::generate: beams: expected 1 with a temperature, got 2");
  EXPECT_EQ(error_of([&] { generate({}, prompt); }),
            "attend::generate: model: expected a function of the logits, got none");
  const TokenModel wrong{.logits = [](const auto&, const auto&) { return torch::zeros({5}); }};
  EXPECT_EQ(error_of([&] { generate(wrong, prompt, {.beams = 2}); }),
            "attend::generate: model: expected a function that selects sequences, for beams, got none");
  EXPECT_EQ(error_of([&] { generate(wrong, prompt); }),
            "attend::generate: logits: expected [1, V], got float32 [5]");
  const TokenModel without_numbers{
      .logits = [](const auto&, const auto&) { return torch::full({1, 5}, NAN); }};
  EXPECT_EQ(error_of([&] { generate(without_numbers, prompt); }),
            "attend::generate: logits: expected numbers of which one is finite, got NaN");
  EXPECT_EQ(error_of([&] { generate(table.model(), torch::tensor({1})); }),
            "attend::generate: prompt: expected int64 [B, L] with L of at least 1, got int64 [1]");
  const auto counts_error = [&](const torch::Tensor& counts) {
    return error_of([&] { generate(table.model(), torch::tensor({{1, 2}, {3, 4}}), {}, counts); });
  };
  EXPECT_EQ(counts_error(torch::tensor({2, 0})), "attend::generate: counts: expected 1 ... 2, got 0 ... 2");
  EXPECT_EQ(counts_error(torch::tensor({3, 1})), "attend::generate: counts: expected 1 ... 2, got 1 ... 3");
  EXPECT_EQ(counts_error(torch::tensor({1})), "attend::generate: counts: expected int64 [2], got int64 [1]");
}

TEST_F(GenerationTest, NoTokensAreWrittenWhereNoneAreAskedFor) {
  const TokenModel unread{.logits = [](const auto&, const auto&) -> torch::Tensor {
                            throw std::logic_error("nothing is to be read");
                          },
                          .select = [](const auto&) {}};
  for (const int64_t beams : {1, 3}) {
    const auto [tokens, log_probability] =
        generate(unread, torch::tensor({{1}, {2}}), {.max_tokens = 0, .beams = beams});
    EXPECT_EQ(tokens.sizes(), (std::vector<int64_t>{2, 0}));
    EXPECT_TRUE(torch::equal(log_probability, torch::zeros(2, torch::kDouble)));
  }
}

}  // namespace
}  // namespace attend::testing
