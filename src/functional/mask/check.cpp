#include "functional/mask/check.h"

namespace attend {

void check_mask(const char* function, const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                at::Device device) {
  if (!mask.defined()) return;
  std::visit([&](const auto& kind) { check(kind, function, shape, query_dim, device); }, mask.node()->kind);
}

}  // namespace attend
