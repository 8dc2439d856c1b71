#include <attend/mask.h>

#include "functional/mask/check.h"

namespace attend {

void check(const MaskNode::Both& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device) {
  check_mask(function, mask.left, shape, query_dim, device);
  check_mask(function, mask.right, shape, query_dim, device);
}

void check(const MaskNode::Not& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device) {
  check_mask(function, mask.inner, shape, query_dim, device);
}

Mask operator&(const Mask& left, const Mask& right) {
  if (!left.defined()) return right;
  if (!right.defined()) return left;
  return make_mask(MaskNode::Both{left, right});
}

Mask operator|(const Mask& left, const Mask& right) {
  if (!left.defined() || !right.defined()) return {};
  return ~(~left & ~right);
}

Mask operator~(const Mask& mask) { return make_mask(MaskNode::Not{mask.defined() ? mask : window(-1, -1)}); }

}  // namespace attend
