#pragma once

#include <ATen/core/Tensor.h>
#include <attend/linear_attention.h>

#include <vector>

#include "core/dtypes.h"

namespace attend {

/// A causal call of `linear_attention` with checked arguments: query, key and value are [B, H, L, D], every
/// default is filled in, and random features are already applied. If `query` has length 0, only the final
/// state is computed.
struct LinearAttentionCall {
  at::Tensor query, key, value;
  FeatureMap feature_map = FeatureMap::identity;
  bool normalize = false;
  double scale = 1;
  /// Of compute type: undefined, [H], [B, H, Lk] or [B, H, Lk, D].
  at::Tensor log_decay = {};
  at::Tensor beta = {};           ///< of compute type, [B, H, Lk], or undefined
  at::Tensor initial_state = {};  ///< of compute type, [B, H, D, state_width()], or undefined
  at::Tensor key_lengths = {};    ///< int64 [B] on the CPU, or undefined

  int64_t state_width() const { return value.size(3) + (normalize ? 1 : 0); }
  c10::SymInt sym_state_width() const { return value.sym_size(3) + (normalize ? 1 : 0); }
  at::ScalarType compute_type() const { return attend::compute_type(query); }

  /// Returns the defined tensors among those that can have a gradient.
  std::vector<at::Tensor> inputs() const {
    std::vector<at::Tensor> inputs = {query, key, value};
    for (const auto& tensor : {log_decay, beta, initial_state}) {
      if (tensor.defined()) inputs.push_back(tensor);
    }
    return inputs;
  }
};

/// Returns the log decay of each step as [B, H, Lk, 1 or D], a view of `log_decay`; undefined if `log_decay`
/// is undefined. `log_decay` is the log decay of the call, possibly in another dtype.
inline at::Tensor decay_per_step(const at::Tensor& log_decay, const LinearAttentionCall& call) {
  if (!log_decay.defined() || log_decay.dim() == 4) return log_decay;
  if (log_decay.dim() == 3) return log_decay.unsqueeze(-1);
  return log_decay.view({1, -1, 1, 1})
      .expand_symint({call.query.sym_size(0), log_decay.sym_size(0), call.key.sym_size(2), 1});
}

}  // namespace attend
