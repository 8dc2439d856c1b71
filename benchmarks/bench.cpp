// Times attend against what a user would pick instead: the result is verified first, then both sides run
// alternately.
#include <ATen/Parallel.h>
#include <attend/attend.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <string>

#include "compare.h"

namespace {

using attend::benchmarks::compare;

struct Options {
  int pairs = 9;
  int threads = at::get_num_threads();
};

struct Case {
  std::string name;
  std::function<torch::Tensor()> ours, theirs;
};

std::vector<Case> cases() {
  const auto q = torch::randn({1, 8, 1024, 64}), k = torch::randn({1, 8, 1024, 64}),
             v = torch::randn({1, 8, 1024, 64});
  attend::nn::Attention module(attend::nn::AttentionOptions(512, 512, 2048));
  const auto mq = torch::randn({1, 10, 512}), mk = torch::randn({1, 10, 512}),
             mv = torch::randn({1, 10, 2048});
  const auto by_hand = [=]() mutable {
    const auto scores =
        torch::matmul(module->q_linear(mq), module->k_linear(mk).transpose(-2, -1)) / std::sqrt(512.0);
    return torch::matmul(torch::softmax(scores, -1), module->v_linear(mv));
  };
  return {
      {"attention [1, 8, 1024, 64] / ATen SDPA", [=] { return attend::attention(q, k, v); },
       [=] { return at::scaled_dot_product_attention(q, k, v); }},
      {"attention, causal / ATen SDPA",
       [=] { return attend::attention(q, k, v, {.mask = attend::causal()}); },
       [=] { return at::scaled_dot_product_attention(q, k, v, {}, 0.0, /*is_causal=*/true); }},
      {"nn::Attention(512, 512, 2048), 10 / by hand", [=]() mutable { return module(mq, mk, mv); }, by_hand},
  };
}

/// False, with a message, where the results differ by more than rounding.
bool verified(const Case& entry) {
  const double difference = (entry.ours() - entry.theirs()).abs().max().item<double>();
  if (difference <= 1e-4) return true;
  fmt::print(stderr, "bench: {}: the results differ by {}, so it is not timed\n", entry.name, difference);
  return false;
}

bool run(const Options& options) {
  at::set_num_threads(options.threads);
  torch::manual_seed(0);
  const torch::NoGradGuard no_grad;
  bool all_verified = true;
  fmt::print("{:<46} {:>10} {:>10} {:>8}   ({} threads, median of {})\n", "ours / theirs", "ours ms",
             "theirs ms", "ratio", options.threads, options.pairs);
  for (const auto& entry : cases()) {
    if (!verified(entry)) {
      all_verified = false;
      continue;
    }
    const auto [ours, theirs, ratio] = compare(entry.ours, entry.theirs, options.pairs);
    fmt::print("{:<46} {:>10.3f} {:>10.3f} {:>7.2f}x\n", entry.name, ours, theirs, ratio);
  }
  return all_verified;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Times attend against what a user would pick instead; a ratio above 1 means that attend is faster");
  app.add_option("--pairs", options.pairs, "Measured pairs")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "Threads")->check(CLI::Range(1, 1024))->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
    return 2;
  }
  return run(options) ? 0 : 1;
}
