#include <attend/mask.h>

#include <utility>

#include "functional/mask/check.h"
#include "functional/position/check.h"

namespace attend {

void check(const MaskNode::Lambda&, const char* function, const ScoreShape& shape, int64_t, at::Device) {
  check_positions(function, "mask_mod", shape);
}

Mask detail::mask_mod_of(std::shared_ptr<const MaskFunction> function) {
  return make_mask(MaskNode::Lambda{std::move(function)});
}

}  // namespace attend
