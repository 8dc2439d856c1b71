// Draws the attention weights of one sentence under four masks and biases: weights FILE.svg.
#include <attend/attend.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <fstream>
#include <string>
#include <vector>

int main(int count, char** arguments) {
  if (count != 2) {
    fmt::print(stderr, "expected the name of the file to write, such as weights.svg\n");
    return 2;
  }
  const std::vector<std::string> tokens = {"the", "cat", "that", "the",  "dog",  "chased",
                                           "ran", "up",  "the",  "tree", "last", "night"};
  torch::manual_seed(3);
  const auto length = static_cast<int64_t>(tokens.size());
  const auto query = 1.5 * torch::randn({1, 1, length, 16}), key = torch::randn({1, 1, length, 16});

  const std::vector<attend::AttentionParams> heads = {
      {.mask = attend::causal()},
      {.mask = attend::causal() & attend::window(3, 0)},
      {.mask = attend::causal(), .score_mod = attend::alibi(torch::tensor({0.5f}))},
      {.mask = attend::causal() | attend::prefix(torch::tensor({5}))},
  };
  std::vector<torch::Tensor> weights;
  for (const auto& head : heads) weights.push_back(attend::attention_weights(query, key, head)[0][0]);

  std::ofstream file(arguments[1]);
  file << attend::attention_svg(torch::stack(weights), {.queries = tokens, .keys = tokens});
  if (!file.flush()) {
    fmt::print(stderr, "{} can't be written\n", arguments[1]);
    return 1;
  }
}
