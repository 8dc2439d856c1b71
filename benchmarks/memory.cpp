// A long sequence: what memory a training step takes, which must grow with the length and not with its
// square.
#include "memory.h"

#include <ATen/Parallel.h>

#include <filesystem>
#include <fstream>

#include "process.h"
#include "sides.h"
#include "verify.h"

namespace attend::benchmarks {
namespace {

constexpr int64_t kHeadDim = 64;
constexpr double kAllowed = 256;  ///< MB

/// A line of /proc/self/status, in MB.
double status(const std::string& name) {
  std::ifstream stream("/proc/self/status");
  std::string word;
  double kilobytes = 0;
  while (stream >> word) {
    if (word == name + ":" && stream >> kilobytes) return kilobytes * 1024 / 1e6;
  }
  throw std::runtime_error(fmt::format("/proc/self/status has no {}", name));
}

/// What is wrong with the last queries' output and gradient, which see every key; empty where nothing is.
std::string verify_last_rows(const Inputs& in, const Tensors& results) {
  constexpr int64_t kRows = 64;
  const at::AutoGradMode graph(true);
  const int64_t length = in.query.size(2);
  const auto rows = [&](const torch::Tensor& tensor) { return tensor.slice(2, length - kRows); };
  const auto query = rows(in.query).detach().requires_grad_();
  const auto hidden = torch::ones({kRows, length}, torch::kBool).triu(length - kRows + 1);
  const auto scores =
      torch::matmul(query, in.key.transpose(-2, -1)) / std::sqrt(static_cast<double>(kHeadDim));
  const auto expected = forward_backward(
      [&] { return torch::matmul(scores.masked_fill(hidden, -INFINITY).softmax(-1), in.value); }, {query})();
  const auto wrong = difference(rows(results[0]), expected[0]);
  return wrong.empty() ? difference(rows(results[3]), expected[1]) : wrong;
}

Tensors step(const Inputs& in) { return forward_backward(ours(in, {.mask = causal()}), in.all())(); }

double extra_memory(int64_t length, int threads) {
  const auto program = std::filesystem::canonical("/proc/self/exe").string();
  return std::stod(output_of(fmt::format("'{}' --memory {} --threads {}", program, length, threads)));
}

Row row(int64_t length) {
  return {.name = fmt::format("memory besides the inputs, causal, one head, L = {} / {:.0f} MB", length,
                              kAllowed),
          .target = 1,
          .make = {},
          .threads = Threads::all,
          .elsewhere =
              [length](int threads, int) {
                const double megabytes = extra_memory(length, threads);
                return Comparison{megabytes, kAllowed, kAllowed / megabytes};
              },
          .unit = "MB"};
}

}  // namespace

int print_extra_memory(int64_t length) {
  step(Inputs(Sizes::self(1, 1024, kHeadDim)).trained());  // what a first call keeps for the next
  const auto in = Inputs(Sizes::self(1, length, kHeadDim)).trained();
  const double before = status("VmRSS");
  std::ofstream("/proc/self/clear_refs") << 5;  // forget the most that there was
  const auto results = step(in);
  const double most = status("VmHWM");
  const auto wrong = verify_last_rows(in, results);
  if (!wrong.empty()) {
    fmt::print(stderr, "bench: the last queries are {}\n", wrong);
    return 1;
  }
  fmt::print("{}\n", most - before);
  return 0;
}

std::vector<Row> memory_rows() {
  auto longest = row(65536);
  longest.in_quick = false;
  return {row(16384), longest};
}

}  // namespace attend::benchmarks
