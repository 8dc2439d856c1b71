#pragma once

#include <string>
#include <vector>

#include "compare.h"

namespace attend::benchmarks {

struct Measurement {
  std::string name;
  int threads;
  Comparison times;
  double target;             ///< 0 where there is none
  double gflops, gigabytes;  ///< of ours, per second; 0 where nobody counts them
  double of_bound;           ///< the shortest time that the machine could do it in, over ours; 0 likewise

  bool meets_target() const { return times.ratio >= target; }
};

void print_header();
void print(const Measurement& measurement);

/// Replaces the file. Throws std::runtime_error where it can't be written.
void write_csv(const std::string& file, const std::vector<Measurement>& measurements);

/// One line on a terminal that says what is being measured; nothing elsewhere.
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
