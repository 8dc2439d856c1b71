#pragma once

#include <ATen/core/Tensor.h>

namespace attend {

/// Whether the tensor carries a forward-mode tangent.
inline bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

}  // namespace attend
