#include <attend/attend.h>
#ifdef CONSUMER_HAS_MODELS
#include <attend/models/sentence_encoder.h>
#endif

#include <cmath>
#include <iostream>

namespace {

// Checks results that would be wrong if the library were built with -ffast-math. ATen's functions examine
// them, since this program itself may be built with that flag.
bool special_values_are_right() {
  constexpr double kInfinity = HUGE_VAL;
  const auto query = torch::randn({1, 2, 70, 16}), key = torch::randn({1, 2, 70, 16});
  const auto value = torch::randn({1, 2, 70, 16});

  // A causal mask without the query's own position, by which the first query may attend to no key.
  auto trained = query.clone().requires_grad_();
  const auto [masked, logsumexp] =
      attend::attention_with_lse(trained, key, value, {.mask = attend::causal() & ~attend::window(0, 0)});
  masked.sum().backward();
  bool right = masked.select(2, 0).eq(0).all().item<bool>();
  right &= logsumexp.select(2, 0).isneginf().all().item<bool>();
  right &= masked.isfinite().all().item<bool>() && trained.grad().isfinite().all().item<bool>();

  // A bias of -inf hides a key; a NaN in a visible value stays NaN.
  auto hidden = torch::zeros({70, 70});
  hidden.select(1, 3).fill_(-kInfinity);
  const auto weights = attend::attention_weights(query, key, {.score_mod = attend::bias(hidden)});
  right &= weights.select(3, 3).eq(0).all().item<bool>() && weights.isfinite().all().item<bool>();
  auto damaged = value.clone();
  damaged.select(2, 5).fill_(std::nan(""));
  right &= attend::attention(query, key, damaged).isnan().all().item<bool>();

  // Scores for which exp overflows, and compensated sums, must be as exact as in double precision.
  const auto loud = 300 * query;
  const auto expected =
      attend::attention(loud.to(torch::kFloat64), key.to(torch::kFloat64), value.to(torch::kFloat64));
  right &= attend::attention(loud, key, value).sub(expected).abs().max().item<double>() < 2e-3;
  return right;
}

}  // namespace

int main() {
  torch::manual_seed(0);
  attend::nn::Attention attention(attend::nn::AttentionOptions(8, 16, 4));
  const auto q = torch::randn({2, 3, 8}), k = torch::randn({2, 5, 16}), v = torch::randn({2, 5, 4});
  const auto output = attention(q, k, v, attend::causal());
  output.sum().backward();
  const bool trained = attention->q_linear->weight.grad().defined();
  std::cout << "attend " << ATTEND_VERSION_MAJOR << "." << ATTEND_VERSION_MINOR << " " << output.sizes()
            << "\n";
#ifdef CONSUMER_HAS_MODELS
  const attend::models::WordPiece tokenizer({"[UNK]", "[CLS]", "[SEP]", "hello"});
  if (tokenizer.encode("Hello").ids != std::vector<int64_t>{1, 3, 2}) return 1;
#endif
  if (!special_values_are_right()) {
    std::cout << "special values are wrong\n";
    return 1;
  }
  return trained && output.sizes() == torch::IntArrayRef({2, 3, 4}) ? 0 : 1;
}
