// Times attend against what a user would pick instead: the result is verified first, then both sides run
// alternately.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <map>
#include <optional>
#include <set>

#include "limits.h"
#include "report.h"
#include "row.h"
#include "verify.h"

namespace attend::benchmarks {
namespace {

struct Options {
  bool quick = false, list = false;
  std::string filter, csv;
  int pairs = 9;
  int threads = 0;  ///< 0: one, and all
};

std::vector<Row> rows_for(const Options& options) {
  std::vector<Row> selected;
  for (const auto& rows :
       {dense_rows(), dropout_rows(), bias_rows(), half_rows(), window_rows(), decode_rows(), short_rows()}) {
    for (const auto& row : rows) {
      if (row.name.find(options.filter) != std::string::npos) selected.push_back(row);
    }
  }
  return selected;
}

std::vector<int> thread_counts(const Row& row, const Options& options) {
  if (options.threads > 0) return {options.threads};
  const int all = at::get_num_threads();
  if (row.threads == Threads::one || all == 1) return {1};
  if (row.threads == Threads::all || options.quick) return {all};
  return {1, all};
}

/// Of ATen's number of threads.
const Limits& limits() {
  static std::map<int, Limits> known;
  auto& limits = known[at::get_num_threads()];
  if (limits.gflops == 0) limits = measure_limits();
  return limits;
}

void print_limits(const std::set<int>& thread_counts) {
  for (const int threads : thread_counts) {
    at::set_num_threads(threads);
    fmt::print(
        "The machine's bound with {} thread{}: {:.0f} GFLOP/s of multiply-adds, {:.1f} GB/s of plain "
        "reads\n",
        threads, threads == 1 ? "" : "s", limits().gflops, limits().gigabytes);
  }
}

/// Nothing where the result is wrong.
std::optional<Measurement> measure(const Row& row, const Sides& sides, int threads, int pairs) {
  at::set_num_threads(threads);
  const auto wrong = verify(sides);
  if (!wrong.empty()) {
    fmt::print(stderr, "bench: {}: {}, so it is not timed\n", row.name, wrong);
    return {};
  }
  const auto times = compare([&] { sides.ours(); }, [&] { sides.theirs(); }, pairs);
  return Measurement{row.name,
                     threads,
                     times,
                     row.target,
                     sides.flops / times.ours / 1e6,
                     sides.bytes / times.ours / 1e6,
                     limits().milliseconds(sides.flops, sides.bytes) / times.ours};
}

/// Whether every result was right.
bool run(const std::vector<Row>& rows, const Options& options) {
  const int all_threads = at::get_num_threads();
  const torch::NoGradGuard no_grad;
  bool all_right = true;
  std::vector<Measurement> measurements;
  ProgressLine progress(rows.size());
  print_limits(options.threads > 0 ? std::set<int>{options.threads} : std::set<int>{1, all_threads});
  print_header();
  for (const auto& row : rows) {
    progress.step(row.name);
    at::set_num_threads(all_threads);
    torch::manual_seed(0);
    const auto sides = row.make();
    for (const int threads : thread_counts(row, options)) {
      const auto measurement = measure(row, sides, threads, options.pairs);
      progress.clear();
      all_right &= measurement.has_value();
      if (!measurement) continue;
      print(*measurement);
      measurements.push_back(*measurement);
    }
  }
  if (!options.csv.empty()) write_csv(options.csv, measurements);
  return all_right;
}

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Times attend against what a user would pick instead; a ratio above 1 means that attend is faster.");
  const auto* pairs = app.add_option("--pairs", options.pairs, "Measured pairs (default: 9, with --quick 3)")
                          ->check(CLI::Range(1, 10000));
  app.add_option("--threads", options.threads, "Threads (default: one, and all)")->check(CLI::Range(1, 1024));
  app.add_option("--filter", options.filter, "Only the rows whose name contains this");
  app.add_option("--csv", options.csv, "Write the measurements to this file");
  app.add_flag("--quick", options.quick, "Fewer pairs, on all threads alone: two minutes");
  app.add_flag("--list", options.list, "Print the rows' names and measure nothing");
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
    return 2;
  }
  if (options.quick && pairs->count() == 0) options.pairs = 3;
  const auto rows = rows_for(options);
  if (rows.empty()) {
    fmt::print(stderr, "bench: filter: expected a part of a row's name (--list prints them), got {}\n",
               options.filter);
    return 2;
  }
  if (options.list) {
    for (const auto& row : rows) fmt::print("{}\n", row.name);
    return 0;
  }
  return run(rows, options) ? 0 : 1;
}

}  // namespace
}  // namespace attend::benchmarks

int main(int argc, char** argv) {
  try {
    return attend::benchmarks::main(argc, argv);
  } catch (const c10::Error& error) {
    fmt::print(stderr, "bench: {}\n", error.what_without_backtrace());
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
  }
  return 1;
}
