#pragma once

// Every form in which linear attention can be computed, among them the recurrence that defines it.

#include <attend/linear_attention.h>

#include <string>
#include <utility>
#include <vector>

namespace attend::testing {

enum class LinearForm {
  automatic,  ///< the backend that the library chooses
  fused,      ///< the kernels
  chunked,    ///< the reference backend
  recurrent,  ///< the recurrence, step by step, which no backend uses
};

/// Computes `linear_attention` of tensors of four dimensions in the given form.
LinearAttentionResult linear_attention_as(LinearForm form, const at::Tensor& query, const at::Tensor& key,
                                          const at::Tensor& value, LinearAttentionParams params = {});

}  // namespace attend::testing
