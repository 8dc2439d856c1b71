#include <attend/mask.h>

#include "functional/mask/check.h"

namespace attend {

void check(const MaskNode::Documents& mask, const char* function, const ScoreShape& shape, int64_t,
           at::Device device) {
  const auto& ids = mask.ids;
  checks::check_has_data(function, "document_ids", ids, device);
  const bool is_per_batch = ids.dim() == 2;
  if (ids.size(-1) != shape.keys || (is_per_batch && ids.size(0) != shape.batch)) {
    checks::fail(function, "document_ids",
                 c10::str("one id per key, [", shape.keys, "] or [", shape.batch, ", ", shape.keys, "]"),
                 checks::describe(ids));
  }
}

Mask documents(const at::Tensor& document_ids) {
  checks::check_strided("documents", "document_ids", document_ids);
  const bool is_integral = document_ids.scalar_type() == at::kLong || document_ids.scalar_type() == at::kInt;
  if (!is_integral || document_ids.dim() < 1 || document_ids.dim() > 2) {
    checks::fail("documents", "document_ids", "int64 or int32 [Lk] or [B, Lk]",
                 checks::describe(document_ids));
  }
  return make_mask(MaskNode::Documents{document_ids.to(at::kLong, /*non_blocking=*/false, /*copy=*/true)});
}

}  // namespace attend
