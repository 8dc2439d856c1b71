#include <attend/attend.h>
#ifdef CONSUMER_HAS_MODELS
#include <attend/models/sentence_encoder.h>
#endif

#include <iostream>

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
  return trained && output.sizes() == torch::IntArrayRef({2, 3, 4}) ? 0 : 1;
}
