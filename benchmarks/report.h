#pragma once

#include <string>
#include <vector>

#include "compare.h"
#include "lengths.h"
#include "peak_rates.h"

namespace attend::benchmarks {

struct Measurement {
  std::string name, unit;
  int threads;
  Comparison times;
  double target = 0;                 ///< the least ratio to be reached; 0 means none
  double gflops = 0, gigabytes = 0;  ///< the rates of attend per second; 0 means not counted
  /// The time at the peak rates divided by attend's time; 0 means not counted.
  double roofline_fraction = 0;

  bool meets_target() const { return times.ratio >= target; }
};

/// Returns "1 thread", "2 threads", and so on.
std::string threads_text(int threads);

void print(const PeakRates& rates);
void print_header();
void print(const Measurement& measurement);

// The following functions replace a file, and throw std::runtime_error if it can't be written.

void write_csv(const std::string& file, const std::vector<Measurement>& measurements);
void write_csv(const std::string& file, const std::vector<Series>& lengths);

/// Writes the machine, the command and the table between the two marker lines of the file. A file without
/// marker lines is overwritten.
void write_markdown(const std::string& file, const std::string& command, const std::vector<PeakRates>& rates,
                    const std::vector<Measurement>& measurements);

/// A line on stderr that shows what is being measured, if stderr is a terminal.
class ProgressLine {
 public:
  explicit ProgressLine(size_t steps);
  void step(const std::string& what);
  void clear() const;

 private:
  size_t steps_, step_ = 0;
  bool on_terminal_;
};

}  // namespace attend::benchmarks
