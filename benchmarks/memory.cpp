// The peak memory of a training step on a long sequence, which must grow linearly with the length.
#include "memory.h"

#include <ATen/Parallel.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "modules.h"
#include "process.h"
#include "verify.h"

namespace attend::benchmarks {
namespace {

constexpr int64_t kHeadDim = 64;
constexpr double kAllowed = 256;  ///< MB

/// Returns a field of /proc/self/status in MB.
double memory_status(const std::string& name) {
  std::ifstream stream("/proc/self/status");
  std::string word;
  double kilobytes = 0;
  while (stream >> word) {
    if (word == name + ":" && stream >> kilobytes) return kilobytes * 1024 / 1e6;
  }
  throw std::runtime_error(fmt::format("/proc/self/status has no {}", name));
}

/// Returns the error of the output and gradient of the last queries, which attend to all keys; empty if it is
/// within the tolerance.
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

/// A training step, and a check of its results that returns the error as text, empty if it is within the
/// tolerance.
struct Step {
  Side run;
  std::function<std::string(const Tensors& results)> verify = [](const Tensors&) { return std::string(); };
};

Step step_of(const std::string& what, int64_t length) {
  if (what == "attention") {
    const auto in = Inputs(Sizes::self(1, length, kHeadDim)).trained();
    return {forward_backward(ours(in, {.mask = causal()}), in.all()),
            [in](const Tensors& results) { return verify_last_rows(in, results); }};
  }
  const auto sides = module_training_sides(length);  // the rows of modules.cpp verify them
  return {what == "module" ? sides.ours : sides.baseline};
}

/// Measures the memory in a separate process.
double extra_memory(const std::string& what, int64_t length, int threads) {
  const auto program = std::filesystem::canonical("/proc/self/exe").string();
  return std::stod(
      output_of(fmt::format("'{}' --memory {} --length {} --threads {}", program, what, length, threads)));
}

using Megabytes = std::function<double(int threads)>;

Row row(const std::string& name, double target, const Megabytes& ours, const Megabytes& baseline) {
  return {.name = "peak memory beyond the inputs, " + name,
          .target = target,
          .make = {},
          .threads = Threads::all,
          .in_own_process =
              [=](int threads, int) {
                const double our_peak = ours(threads), baseline_peak = baseline(threads);
                return Comparison{our_peak, baseline_peak, baseline_peak / our_peak};
              },
          .unit = "MB"};
}

Row attention_row(int64_t length) {
  return row(
      fmt::format("causal, one head, L = {} / {:.0f} MB", length, kAllowed), 1,
      [length](int threads) { return extra_memory("attention", length, threads); },
      [](int) { return kAllowed; });
}

Megabytes module_memory(const std::string& what, int64_t length, double times = 1) {
  return [=](int threads) { return times * extra_memory(what, length, threads); };
}

}  // namespace

int print_extra_memory(const std::string& what, int64_t length) {
  step_of(what, 1024).run();  // so that one-time allocations are not measured
  const auto step = step_of(what, length);
  const double before = memory_status("VmRSS");
  std::ofstream("/proc/self/clear_refs") << 5;  // resets VmHWM, the peak
  const auto results = step.run();
  const double peak = memory_status("VmHWM");
  const auto wrong = step.verify(results);
  if (!wrong.empty()) {
    fmt::print(stderr, "bench: the result for the last queries is {}\n", wrong);
    return 1;
  }
  fmt::print("{}\n", peak - before);
  return 0;
}

std::vector<Row> memory_rows() {
  auto longest = attention_row(65536);
  longest.in_quick = false;
  const std::string module = "nn::MultiHeadAttention(512, 8), ";
  return {attention_row(16384), longest,
          row(module + "L = 4096 / torch::nn", 1, module_memory("module", 4096),
              module_memory("torch_module", 4096)),
          row(module + "L = 16384 / four times L = 4096", 0.9, module_memory("module", 16384),
              module_memory("module", 4096, 4))};
}

}  // namespace attend::benchmarks
