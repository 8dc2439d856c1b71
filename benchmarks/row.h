#pragma once

#include <torch/torch.h>

#include <functional>
#include <string>
#include <vector>

#include "compare.h"

namespace attend::benchmarks {

using Tensors = std::vector<torch::Tensor>;
using Side = std::function<Tensors()>;

/// Both sides of a comparison: attend and its baseline.
struct Sides {
  Side ours, baseline;
  /// Computes the expected result of `ours`; if empty, `baseline` computes it.
  Side expected = {};
  /// The least number of floating-point operations, and of bytes of input, for one run of `ours`; 0 means not
  /// counted.
  double flops = 0, bytes = 0;
  bool in_bfloat16 = false;  ///< whether `flops` are bfloat16 products
};

enum class Threads { one_and_all, one, all };

/// A line of the table.
struct Row {
  std::string name;
  double target;  ///< the least ratio of the times baseline / ours to be reached; 0 means none
  /// Creates the inputs and the sides. It is called when the row is measured.
  std::function<Sides()> make;
  Threads threads = Threads::one_and_all;
  bool in_quick = true;
  /// Replaces `make` if the sides need a separate process, in which it verifies and times them. Throws
  /// std::runtime_error on failure.
  std::function<Comparison(int threads, int pairs)> in_own_process = {};
  const char* unit = "ms";
};

std::vector<Row> dense_rows();
std::vector<Row> dropout_rows();
std::vector<Row> bias_rows();
std::vector<Row> gradient_rows();
std::vector<Row> mask_rows();
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
