#include "functional/mask/materialize.h"

#include "functional/mask/check.h"
#include "reference/mask.h"

namespace attend {

at::Tensor materialize(const char* function, const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                       at::Device device) {
  check_mask(function, mask, shape, query_dim, device);
  return reference::allowed(mask, shape, query_dim, device);
}

}  // namespace attend
