#pragma once

#include <torch/torch.h>

#include <functional>
#include <string>
#include <vector>

#include "compare.h"

namespace attend::benchmarks {

using Tensors = std::vector<torch::Tensor>;
using Side = std::function<Tensors()>;

/// Both sides of a comparison: attend and what it is compared with.
struct Sides {
  Side ours, baseline;
  /// Computes the expected result of `ours`; `baseline` if empty.
  Side expected = {};
  /// The floating-point operations and the bytes of input that one run of `ours` needs at least; 0: not
  /// counted.
  double flops = 0, bytes = 0;
  bool in_bfloat16 = false;  ///< whether `flops` are bfloat16 products
};

enum class Threads { one_and_all, one, all };

/// A line of the table.
struct Row {
  std::string name;
  double target;  ///< the least ratio of times, baseline / ours, to be met; 0: none
  /// Creates the inputs. Called when the row is measured.
  std::function<Sides()> make;
  Threads threads = Threads::one_and_all;
  bool in_quick = true;
  /// Replaces `make` if the sides need a process of their own: verifies and times them there. Throws
  /// std::runtime_error on failure.
  std::function<Comparison(int threads, int pairs)> in_own_process = {};
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
