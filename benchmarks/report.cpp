#include "report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <stdexcept>

namespace attend::benchmarks {
namespace {

std::string verdict(const Measurement& m) {
  if (m.target == 0) return "";
  if (m.meets_target()) return "met";
  return fmt::format("missed by {:.0f} %", 100 * (1 - m.times.ratio / m.target));
}

std::string rates(const Measurement& m) {
  std::string text;
  if (m.gflops > 0) text += fmt::format("{:7.1f} GFLOP/s", m.gflops);
  if (m.gigabytes > 0) text += fmt::format(" {:5.1f} GB/s", m.gigabytes);
  if (m.of_bound > 0) text += fmt::format(" {:3.0f} % of the bound", 100 * m.of_bound);
  return text;
}

}  // namespace

void print_header() {
  fmt::print("{:<58} {:>7} {:>10} {:>10} {:>8} {:>7}  {:<16} {}\n", "ours / theirs", "threads", "ours ms",
             "theirs ms", "ratio", "target", "", "ours");
}

void print(const Measurement& m) {
  const auto target = m.target == 0 ? "" : fmt::format("{:.2f}x", m.target);
  fmt::print("{:<58} {:>7} {:>10.3f} {:>10.3f} {:>7.2f}x {:>7}  {:<16} {}\n", m.name, m.threads, m.times.ours,
             m.times.theirs, m.times.ratio, target, verdict(m), rates(m));
  std::fflush(stdout);
}

void write_csv(const std::string& file, const std::vector<Measurement>& measurements) {
  std::ofstream stream(file);
  stream << "name,threads,ours_ms,theirs_ms,ratio,target,ours_gflops,ours_gb_per_s,of_bound\n";
  for (const auto& m : measurements) {
    stream << fmt::format("\"{}\",{},{:.4f},{:.4f},{:.3f},{:.3f},{:.1f},{:.1f},{:.3f}\n", m.name, m.threads,
                          m.times.ours, m.times.theirs, m.times.ratio, m.target, m.gflops, m.gigabytes,
                          m.of_bound);
  }
  if (!stream.flush()) throw std::runtime_error(fmt::format("{} can't be written", file));
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
