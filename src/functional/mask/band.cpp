#include <attend/mask.h>

#include "core/mask_node.h"

namespace attend {

Mask causal(Corner corner) {
  if (corner != Corner::bottom_right && corner != Corner::top_left) {
    checks::fail("causal", "corner", "bottom_right or top_left", c10::str(static_cast<int64_t>(corner)));
  }
  return make_mask(MaskNode::Causal{corner});
}

Mask window(int64_t left, int64_t right) {
  if (left < -1) checks::fail("window", "left", "-1 (unbounded) or more", c10::str(left));
  if (right < -1) checks::fail("window", "right", "-1 (unbounded) or more", c10::str(right));
  return make_mask(MaskNode::Window{left, right});
}

}  // namespace attend
