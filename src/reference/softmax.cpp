#include "reference/softmax.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/where.h>

#include "core/dtypes.h"

namespace attend::reference {

at::Tensor rows_with_visible_key(const at::Tensor& scores) {
  return scores.ne(kMinusInfinity).any(-1, /*keepdim=*/true);
}

at::Tensor softmax(const at::Tensor& scores) {
  const auto is_visible = rows_with_visible_key(scores);
  return at::where(is_visible, at::softmax(at::where(is_visible, scores, 0.0), -1), 0.0);
}

}  // namespace attend::reference
