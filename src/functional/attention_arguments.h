#pragma once

#include "core/attention_call.h"

namespace attend {

/// Returns the call that the arguments of `function` describe, without a dropout seed. Throws an error of
/// `function` if an argument is wrong.
AttentionCall checked_call(const char* function, const at::Tensor& query, const at::Tensor& key,
                           const at::Tensor& value, const AttentionParams& params);

/// Draws a dropout seed, int64 [1], from the default generator of the device.
at::Tensor draw_seed(at::Device device);

}  // namespace attend
