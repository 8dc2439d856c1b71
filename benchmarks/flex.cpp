// PyTorch's compiled FlexAttention, which exists in Python only. Both sides run in a Python process, attend
// through its operators.
#include <fmt/ranges.h>

#include <sstream>

#include "process.h"
#include "row.h"

namespace attend::benchmarks {

#ifdef ATTEND_PYTHON
namespace {

Row row(const char* name, const char* variant, double target) {
  return {.name = name,
          .target = target,
          .make = {},
          .in_quick = false,
          .in_own_process = [variant](int threads, int pairs) {
            std::istringstream output(
                output_of(fmt::format("'{}' -B '{}' {} --library '{}' --threads {} --pairs {}", ATTEND_PYTHON,
                                      ATTEND_FLEX, variant, ATTEND_LIBRARY, threads, pairs)));
            Comparison times{};
            if (!(output >> times.ours >> times.baseline >> times.ratio)) {
              throw std::runtime_error("flex.py printed no times");
            }
            return times;
          }};
}

}  // namespace

std::vector<Row> flex_rows() {
  return {
      row("window of 256 either side, L = 8192, forward / FlexAttention", "window", 3),
      row("ALiBi forward / FlexAttention", "alibi", 3.5),
      row("softcap forward / FlexAttention", "softcap", 4),
      row("causal forward / FlexAttention", "causal", 1.5),
  };
}
#else
std::vector<Row> flex_rows() { return {}; }  // for a LibTorch that does not belong to a Python
#endif

}  // namespace attend::benchmarks
