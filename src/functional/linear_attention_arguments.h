#pragma once

#include <vector>

#include "core/linear_attention_call.h"

namespace attend {

/// The sizes of a call whose tensors have four dimensions, and the number of dimensions of the caller's
/// query.
struct LinearSizes {
  int64_t batch, heads, keys, features, state_width;
  int64_t query_dim;

  /// The sizes [B, H, rest...] in the caller's number of dimensions.
  std::vector<int64_t> per_head(std::vector<int64_t> rest) const;
};

/// The checked arguments of `linear_attention`.
struct LinearAttentionArguments {
  /// The call before random features are applied: its query and key are the caller's.
  LinearAttentionCall call;
  at::Tensor projection;  ///< of the random features, or undefined
  bool is_causal = false;
  LinearSizes sizes;

  /// Every tensor but the key lengths, which are copied to the CPU.
  std::vector<at::Tensor> tensors() const;
};

/// The arguments of `function`; throws an error of `function` if one is wrong.
LinearAttentionArguments checked_arguments(const char* function, const at::Tensor& query,
                                           const at::Tensor& key, const at::Tensor& value,
                                           const LinearAttentionParams& params);

/// Throws an error of `function` unless the tensor is a state of the call, in the query's dtype or float32.
void check_linear_state(const char* function, const char* argument, const at::Tensor& state,
                        const at::Tensor& query, const LinearSizes& sizes, bool normalize);

}  // namespace attend
