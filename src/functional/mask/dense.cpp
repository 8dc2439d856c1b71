#include <attend/mask.h>

#include "functional/mask/check.h"

namespace attend {

void check(const MaskNode::Dense& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device) {
  checks::check_device(function, "mask", mask.allowed, device);
  checks::broadcastable(function, "mask", mask.allowed, shape, query_dim);
}

Mask::Mask(const at::Tensor& allowed) {
  if (allowed.defined()) *this = dense(allowed);
}

Mask dense(const at::Tensor& allowed) {
  checks::check_strided("dense", "allowed", allowed);
  if (allowed.scalar_type() != at::kBool) {
    checks::fail("dense", "allowed", "dtype bool, true = may attend (attend::bias adds to the scores)",
                 checks::describe(allowed));
  }
  return make_mask(MaskNode::Dense{allowed});
}

}  // namespace attend
