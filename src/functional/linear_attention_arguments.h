#pragma once

#include <vector>

#include "core/linear_attention_call.h"

namespace attend {

/// The sizes of a call, as its tensors of four dimensions have them.
struct LinearSizes {
  int64_t batch, heads, keys, features, state_width;
  int64_t query_dim;

  /// [B, H, rest...] as the caller sees it.
  std::vector<int64_t> per_head(std::vector<int64_t> rest) const;
};

struct CheckedLinearCall {
  LinearAttentionCall call;
  LinearSizes sizes;
};

/// The call that the arguments describe; fails in the name of `function` where one is wrong. The query, key
/// and feature map of random features are left as they are.
CheckedLinearCall check_linear_attention(const char* function, const at::Tensor& query, const at::Tensor& key,
                                         const at::Tensor& value, const LinearAttentionParams& params);

/// Fails unless the tensor is a state of the call, in the query's dtype or float32.
void check_linear_state(const char* function, const char* argument, const at::Tensor& state,
                        const at::Tensor& query, const LinearSizes& sizes, bool normalize);

}  // namespace attend
