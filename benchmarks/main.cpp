// Times attend against its alternatives. Each row first verifies the result, and then runs both sides
// alternately.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>

#include "charts.h"
#include "encode.h"
#include "lengths.h"
#include "measure.h"
#include "memory.h"
#include "report.h"
#include "row.h"

namespace attend::benchmarks {
namespace {

constexpr auto kLengthsName = "time over the length";

struct Options {
  bool quick = false, list = false;
  std::string filter, output, markdown;
  int pairs = 9;
  int threads = 0;                  ///< 0 means one thread, and then all threads
  std::string memory;               ///< the computation whose memory this process measures
  int64_t length = 0;               ///< the length of that computation
  std::vector<std::string> encode;  ///< the model's folder, the file of texts, the file of vectors
  std::string command;              ///< the command line, for the table

  bool selects(const std::string& name) const { return name.find(filter) != std::string::npos; }
};

std::vector<Row> rows_for(const Options& options) {
  std::vector<Row> selected;
  for (const auto& rows : {dense_rows(), dropout_rows(), bias_rows(), mask_rows(), gradient_rows(),
                           score_mod_rows(), half_rows(), window_rows(), flex_rows(), decode_rows(),
                           short_rows(), linear_rows(), module_rows(), encode_rows(), memory_rows()}) {
    for (const auto& row : rows) {
      if (options.selects(row.name) && (row.in_quick || !options.quick)) selected.push_back(row);
    }
  }
  return selected;
}

std::vector<int> thread_counts(const Options& options, Threads wanted = Threads::one_and_all) {
  if (options.threads > 0) return {options.threads};
  const int all = at::get_num_threads();
  if (wanted == Threads::one || all == 1) return {1};
  if (wanted == Threads::all || options.quick) return {all};
  return {1, all};
}

struct Results {
  std::vector<PeakRates> peak_rates;
  std::vector<Measurement> measurements;
  std::vector<Series> lengths;
  bool all_correct = true;
};

void measure_row(const Row& row, const Options& options, Results& results) {
  const auto counts = thread_counts(options, row.threads);
  torch::manual_seed(0);
  const auto sides = row.in_own_process ? Sides() : row.make();
  for (const int threads : counts) {
    const auto measurement = row.in_own_process ? measure_in_own_process(row, threads, options.pairs)
                                                : measure(row, sides, threads, options.pairs);
    results.all_correct &= measurement.has_value();
    if (!measurement) continue;
    print(*measurement);
    results.measurements.push_back(*measurement);
  }
}

Results run(const std::vector<Row>& rows, const Options& options) {
  const int all_threads = at::get_num_threads();
  const torch::NoGradGuard no_grad;
  Results results;
  ProgressLine progress(rows.size() + 1);
  results.peak_rates = peak_rates(thread_counts(options));
  for (const auto& rates : results.peak_rates) print(rates);
  print_header();
  for (const auto& row : rows) {
    progress.step(row.name);
    at::set_num_threads(all_threads);
    measure_row(row, options, results);
    progress.clear();
  }
  if (options.selects(kLengthsName)) {
    progress.step(kLengthsName);
    at::set_num_threads(options.threads > 0 ? options.threads : all_threads);
    results.lengths = measure_lengths(options.quick ? 2048 : 8192, options.pairs);
    results.all_correct &= !results.lengths.empty();
    progress.clear();
  }
  return results;
}

void write(const Results& results, const Options& options) {
  const auto folder = std::filesystem::path(options.output);
  std::filesystem::create_directories(folder);
  std::vector<std::string> written;
  const auto file = [&](const char* name) { return written.emplace_back(folder / name); };
  if (!results.measurements.empty()) {
    write_csv(file("ratios.csv"), results.measurements);
    draw_ratios(file("ratios.svg"), results.measurements);
  }
  if (!results.lengths.empty()) {
    write_csv(file("lengths.csv"), results.lengths);
    draw_lengths(file("lengths.svg"), results.lengths);
  }
  if (!options.markdown.empty()) {
    write_markdown(options.markdown, options.command, results.peak_rates, results.measurements);
    written.push_back(options.markdown);
  }
  fmt::print("Written: {}\n", fmt::join(written, ", "));
}

void add_options(CLI::App& app, Options& options) {
  app.add_option("--pairs", options.pairs, "Measured pairs (default: 9, or 3 with --quick)")
      ->check(CLI::Range(1, 10000));
  app.add_option("--threads", options.threads, "Number of threads (default: measures with 1 and with all)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--filter", options.filter, "Only the rows whose name contains this text");
  app.add_option("--output", options.output, "Folder of the CSV and SVG files (default: the program's)");
  app.add_option("--markdown", options.markdown,
                 "Write the table into this file, between its marker lines if it has them");
  app.add_flag("--quick", options.quick, "Fewer pairs, all threads only, no FlexAttention: two minutes");
  app.add_flag("--list", options.list, "Print the names of the rows, and exit");
  // Hidden options: a row that must be measured in a separate process starts this program with them.
  app.add_option("--memory", options.memory)->group("");
  app.add_option("--length", options.length)->group("");
  app.add_option("--encode", options.encode)->expected(3)->group("");
}

int main(int argc, char** argv) {
  Options options;
  options.command = fmt::format("./dev bench {}", fmt::join(argv + 1, argv + argc, " "));
  CLI::App app("Times attend against its alternatives; a ratio above 1 means that attend is faster.");
  add_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    fmt::print(stderr, "bench: {}\n", error.what());
    return 2;
  }
  if (!options.encode.empty()) {
    if (options.threads > 0) at::set_num_threads(options.threads);
    return print_encoding_time(options.encode[0], options.encode[1], options.encode[2]);
  }
  if (!options.memory.empty()) return print_extra_memory(options.memory, options.length);
  if (options.quick && app.count("--pairs") == 0) options.pairs = 3;
  if (options.output.empty()) options.output = std::filesystem::canonical("/proc/self/exe").parent_path();
  const auto rows = rows_for(options);
  if (rows.empty() && !options.selects(kLengthsName)) {
    fmt::print(stderr, "bench: filter: expected a part of a row's name (--list prints all), got {}\n",
               options.filter);
    return 2;
  }
  if (options.list) {
    for (const auto& row : rows) fmt::print("{}\n", row.name);
    if (options.selects(kLengthsName)) fmt::print("{}\n", kLengthsName);
    return 0;
  }
  const auto results = run(rows, options);
  write(results, options);
  return results.all_correct ? 0 : 1;
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
