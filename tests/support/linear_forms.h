#pragma once

// Every way to compute linear attention, among them the recurrence that defines it.

#include <attend/linear_attention.h>

#include <string>
#include <utility>
#include <vector>

namespace attend::testing {

enum class LinearForm {
  automatic,  ///< the backend that the library chooses
  fused,      ///< the kernels
  chunked,    ///< the reference backend
  recurrent,  ///< one step after the other, which no backend does
};

/// `linear_attention` of tensors of four dimensions in one form.
LinearAttentionResult linear_attention_as(LinearForm form, const at::Tensor& query, const at::Tensor& key,
                                          const at::Tensor& value, LinearAttentionParams params = {});

}  // namespace attend::testing
