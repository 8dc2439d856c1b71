#include "report.h"

#include <ATen/Version.h>
#include <fmt/chrono.h>
#include <fmt/ranges.h>
#include <torch/version.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <thread>

#include "files.h"

namespace attend::benchmarks {
namespace {

std::string target_text(const Measurement& m) {
  return m.target == 0 ? "" : fmt::format("{:.2f}x", m.target);
}

std::string verdict(const Measurement& m) {
  if (m.target == 0) return "";
  if (m.meets_target()) return "met";
  return fmt::format("missed by {:.0f} %", 100 * (1 - m.times.ratio / m.target));
}

std::string achieved_rates(const Measurement& m) {
  std::string text;
  if (m.gflops > 0) text += fmt::format("{:7.1f} GFLOP/s", m.gflops);
  if (m.gigabytes > 0) text += fmt::format(" {:5.1f} GB/s", m.gigabytes);
  if (m.roofline_fraction > 0) text += fmt::format(" {:3.0f} % of the roofline", 100 * m.roofline_fraction);
  return text;
}

std::string amount(double value, const std::string& unit) {
  return fmt::format("{:.{}f} {}", value, value < 10 ? 3 : 1, unit);
}

std::string rates_text(const PeakRates& rates) {
  return fmt::format(
      "{:.0f} GFLOP/s of multiply-adds, {:.0f} GFLOP/s in bfloat16 and {:.1f} GB/s of reads with {}",
      rates.gflops, rates.bfloat16_gflops, rates.gigabytes, threads_text(rates.threads));
}

/// Returns a description such as "AMD EPYC, 2 cores, AVX2, LibTorch 2.13.0".
std::string machine() {
  std::ifstream stream("/proc/cpuinfo");
  std::string line, model = "unknown processor";
  while (std::getline(stream, line)) {
    if (line.starts_with("model name")) model = line.substr(line.find(':') + 2);
  }
  return fmt::format("{}, {} cores, {}, LibTorch {}", model, std::thread::hardware_concurrency(),
                     at::get_cpu_capability(), TORCH_VERSION);
}

std::string markdown_table(const std::vector<Measurement>& measurements) {
  std::string table =
      "| attend / baseline | threads | attend | baseline | ratio | target | of the roofline |\n"
      "| --- | --- | --- | --- | --- | --- | --- |\n";
  for (const auto& m : measurements) {
    const auto target = m.target == 0 ? "" : fmt::format("{} {}", target_text(m), verdict(m));
    table +=
        fmt::format("| {} | {} | {} | {} | {:.2f}x | {} | {} |\n", m.name, m.threads,
                    amount(m.times.ours, m.unit), amount(m.times.baseline, m.unit), m.times.ratio, target,
                    m.roofline_fraction > 0 ? fmt::format("{:.0f} %", 100 * m.roofline_fraction) : "");
  }
  return table;
}

}  // namespace

std::string threads_text(int threads) {
  return threads == 1 ? "1 thread" : fmt::format("{} threads", threads);
}

void print(const PeakRates& rates) { fmt::print("Peak rates: {}\n", rates_text(rates)); }

void print_header() {
  fmt::print("{:<66} {:>7} {:>12} {:>12} {:>8} {:>7}  {:<16} {}\n", "attend / baseline", "threads", "attend",
             "baseline", "ratio", "target", "", "attend");
}

void print(const Measurement& m) {
  fmt::print("{:<66} {:>7} {:>12} {:>12} {:>7.2f}x {:>7}  {:<16} {}\n", m.name, m.threads,
             amount(m.times.ours, m.unit), amount(m.times.baseline, m.unit), m.times.ratio, target_text(m),
             verdict(m), achieved_rates(m));
  std::fflush(stdout);
}

void write_csv(const std::string& file, const std::vector<Measurement>& measurements) {
  std::string csv =
      "name,threads,unit,attend,baseline,ratio,target,attend_gflops,attend_gb_per_s,roofline_fraction\n";
  for (const auto& m : measurements) {
    csv += fmt::format("\"{}\",{},{},{:.6g},{:.6g},{:.3f},{:.3f},{:.1f},{:.1f},{:.3f}\n", m.name, m.threads,
                       m.unit, m.times.ours, m.times.baseline, m.times.ratio, m.target, m.gflops, m.gigabytes,
                       m.roofline_fraction);
  }
  write_file(file, csv);
}

void write_csv(const std::string& file, const std::vector<Series>& lengths) {
  std::string csv = "name,length,ms\n";
  for (const auto& series : lengths) {
    for (const auto& [length, time] : series.times)
      csv += fmt::format("\"{}\",{},{:.4f}\n", series.name, length, time);
  }
  write_file(file, csv);
}

void write_markdown(const std::string& file, const std::string& command, const std::vector<PeakRates>& rates,
                    const std::vector<Measurement>& measurements) {
  const std::string begin = "<!-- measured, written by ./dev bench --markdown -->\n", end = "<!-- end -->\n";
  auto text = fmt::format("Measured on {:%Y-%m-%d} by `{}`: {}.", fmt::gmtime(std::time(nullptr)), command,
                          machine());
  for (const auto& peak : rates) text += fmt::format(" Peak rates: {}.", rates_text(peak));
  text += "\n\n" + markdown_table(measurements);
  auto content = read_file(file);
  const auto first = content.find(begin), last = content.find(end);
  if (first == std::string::npos || last == std::string::npos) {
    content = begin + text + end;
  } else {
    content.replace(first + begin.size(), last - first - begin.size(), text);
  }
  write_file(file, content);
}

ProgressLine::ProgressLine(size_t steps) : steps_(steps), on_terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressLine::step(const std::string& what) {
  ++step_;
  if (!on_terminal_) return;
  fmt::print(stderr, "\r\033[K[{}/{}] {}", step_, steps_, what);
  std::fflush(stderr);
}

void ProgressLine::clear() const {
  if (!on_terminal_) return;
  fmt::print(stderr, "\r\033[K");
  std::fflush(stderr);
}

}  // namespace attend::benchmarks
