#pragma once

#include <ATen/core/Tensor.h>
#include <attend/attention.h>

#include <cstdint>

#include "core/checks.h"

namespace attend {

/// A call of `attention` after its arguments were checked: [B, H, L, D] throughout, nothing left to default.
struct AttentionCall {
  at::Tensor query, key, value;
  Mask mask;
  ScoreMod score_mod;
  Weighting weighting;
  double scale;
  double dropout_p;
  uint64_t dropout_seed;
  int64_t query_dim;  ///< of the query as it was given
  bool wants_logsumexp = false;
  at::Tensor sinks = {};  ///< [H] or undefined

  ScoreShape shape() const { return {query.size(0), query.size(1), query.size(2), key.size(2)}; }
};

/// Checks the arguments of `function`. The call has no dropout seed yet.
AttentionCall checked_call(const char* function, const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& value, const AttentionParams& params);

/// A seed for dropout, int64 [1], from the generator of the device.
at::Tensor draw_seed(at::Device device);

}  // namespace attend
