#pragma once

#include <torch/torch.h>

#include <functional>
#include <string>
#include <vector>

#include "compare.h"

namespace attend::benchmarks {

using Tensors = std::vector<torch::Tensor>;
using Side = std::function<Tensors()>;

/// Both sides of a comparison, with the inputs that they hold.
struct Sides {
  Side ours, theirs;
  /// What ours must give; theirs where empty.
  Side expected = {};
  /// Floating-point operations and bytes read by one run of ours, those that can't be done without; 0 where
  /// nobody counts them.
  double flops = 0, bytes = 0;
  bool in_bfloat16 = false;  ///< the floating-point operations
};

enum class Threads { one_and_all, one, all };

/// A line of the table: theirs / ours, the ratio of the times, is to be at least the target.
struct Row {
  std::string name;
  double target;  ///< 0: none
  /// Makes the inputs: called when the row's turn comes.
  std::function<Sides()> make;
  Threads threads = Threads::one_and_all;
  bool in_quick = true;
  /// Instead of `make`, where the sides run in a process of their own: verifies and times them there. Throws
  /// std::runtime_error where that fails.
  std::function<Comparison(int threads, int pairs)> elsewhere = {};
  const char* unit = "ms";
};

std::vector<Row> dense_rows();
std::vector<Row> dropout_rows();
std::vector<Row> bias_rows();
std::vector<Row> score_mod_rows();
std::vector<Row> half_rows();
std::vector<Row> decode_rows();
std::vector<Row> short_rows();
std::vector<Row> window_rows();
std::vector<Row> flex_rows();
std::vector<Row> linear_rows();
std::vector<Row> module_rows();
std::vector<Row> encode_rows();
std::vector<Row> memory_rows();

}  // namespace attend::benchmarks
