// Ten queries attend to ten keys, and each gets a weighted sum of the ten values: the example of the
// introductory article, with its shapes.
#include <attend/attend.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <string_view>

namespace {

void print_shape(std::string_view name, const torch::Tensor& tensor) {
  fmt::print("{:<8} {}\n", name, tensor.sizes());
}

}  // namespace

int main() {
  torch::manual_seed(0);
  attend::nn::Attention attention(attend::nn::AttentionOptions(/*d_q=*/512, /*d_k=*/512, /*d_v=*/2048));

  const auto q = torch::randn({1, 10, 512});
  const auto k = torch::randn({1, 10, 512});
  const auto v = torch::randn({1, 10, 2048});
  const auto weights = attention->weights(q, k);
  const auto output = attention(q, k, v);

  print_shape("q", q);
  print_shape("k", k);
  print_shape("v", v);
  print_shape("weights", weights);
  print_shape("output", output);
  fmt::print("{}\n", output.sizes());
}
