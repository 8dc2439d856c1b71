#pragma once

#include <vector>

#include "core/linear_attention_call.h"

namespace attend {

/// The sizes of a call, which may be symbols, after its tensors were viewed with four dimensions, and the
/// number of dimensions of the caller's query.
struct LinearSizes {
  c10::SymInt batch, heads, keys, features, state_width;
  int64_t query_dim;

  /// Returns the sizes [B, H, rest...], without H for a query of three dimensions, and without B and H for a
  /// query of two.
  std::vector<c10::SymInt> per_head(std::vector<c10::SymInt> rest) const;
};

/// The checked arguments of `linear_attention`.
struct LinearAttentionArguments {
  /// The call with the caller's query and key, before random features are applied.
  LinearAttentionCall call;
  at::Tensor projection;  ///< the projection of the random features, or undefined
  bool is_causal = false;
  LinearSizes sizes;

  /// Returns every tensor except the key lengths, which are a copy on the CPU.
  std::vector<at::Tensor> tensors() const;
};

/// Returns the checked arguments of `function`. Throws an error of `function` if an argument is wrong.
LinearAttentionArguments checked_arguments(const char* function, const at::Tensor& query,
                                           const at::Tensor& key, const at::Tensor& value,
                                           const LinearAttentionParams& params);

/// Throws an error of `function` unless the tensor has the shape of the states of the call, in the query's
/// dtype or float32.
void check_linear_state(const char* function, const char* argument, const at::Tensor& state,
                        const at::Tensor& query, const LinearSizes& sizes, bool normalize);

}  // namespace attend
