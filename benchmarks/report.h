#pragma once

#include <string>
#include <vector>

#include "compare.h"
#include "lengths.h"
#include "limits.h"

namespace attend::benchmarks {

struct Measurement {
  std::string name, unit;
  int threads;
  Comparison times;
  double target = 0;                 ///< 0 where there is none
  double gflops = 0, gigabytes = 0;  ///< of ours, per second; 0 where nobody counts them
  double of_bound = 0;  ///< the shortest time that the machine could do it in, over ours; 0 likewise

  bool meets_target() const { return times.ratio >= target; }
};

/// What the machine does at most with a number of threads.
struct Bound {
  int threads;
  Limits limits;
};

/// "1 thread", "2 threads".
std::string threads_text(int threads);

void print(const Bound& bound);
void print_header();
void print(const Measurement& measurement);

// Files are replaced. Throw std::runtime_error where one can't be written.

void write_csv(const std::string& file, const std::vector<Measurement>& measurements);
void write_csv(const std::string& file, const std::vector<Series>& lengths);

/// Writes the table, with what was measured where, between the two lines of the file that mark its place; a
/// file without them holds the table alone afterwards.
void write_markdown(const std::string& file, const std::string& command, const std::vector<Bound>& bounds,
                    const std::vector<Measurement>& measurements);

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
