#include <ATen/TensorSubclassLikeUtils.h>
#include <attend/mask.h>

#include "functional/mask/check.h"

namespace attend {
namespace {

void check_lengths(const char* function, const char* argument, const at::Tensor& lengths,
                   const ScoreShape& shape, at::Device device) {
  checks::check_has_data(function, argument, lengths, device);
  if (lengths.size(0) != shape.batch) {
    checks::fail(function, argument, c10::str("one length per batch element, [", shape.batch, "]"),
                 checks::describe(lengths));
  }
  if (at::isTensorSubclassLike(lengths)) return;  // the values of a subclass cannot be read
  const auto on_cpu = lengths.cpu();
  const auto values = on_cpu.accessor<int64_t, 1>();
  for (int64_t b = 0; b < shape.batch; ++b) {
    if (values[b] < 0 || values[b] > shape.keys) {
      checks::fail(function, argument, c10::str("lengths in 0 ... ", shape.keys),
                   c10::str(values[b], " for batch element ", b));
    }
  }
}

/// Returns a copy of the lengths, int64 [B].
at::Tensor checked_lengths(const char* function, const at::Tensor& lengths) {
  checks::check_strided(function, "lengths", lengths);
  const bool is_integral = lengths.scalar_type() == at::kLong || lengths.scalar_type() == at::kInt;
  if (!is_integral || lengths.dim() != 1) {
    checks::fail(function, "lengths", "int64 or int32 [B]", checks::describe(lengths));
  }
  return lengths.to(at::kLong, /*non_blocking=*/false, /*copy=*/true);
}

}  // namespace

void check(const MaskNode::KeyLengths& mask, const char* function, const ScoreShape& shape, int64_t,
           at::Device device) {
  check_lengths(function, "key_lengths", mask.lengths, shape, device);
}

void check(const MaskNode::Prefix& mask, const char* function, const ScoreShape& shape, int64_t,
           at::Device device) {
  check_lengths(function, "prefix", mask.lengths, shape, device);
}

Mask key_lengths(const at::Tensor& lengths) {
  return make_mask(MaskNode::KeyLengths{checked_lengths("key_lengths", lengths)});
}

Mask prefix(const at::Tensor& lengths) {
  return make_mask(MaskNode::Prefix{checked_lengths("prefix", lengths)});
}

}  // namespace attend
