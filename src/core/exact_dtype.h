#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace attend {

/// During the lifetime of this object, ATen's operations on this thread keep the dtypes of their tensors,
/// even under autocast, which would round sums to a half type that must accumulate in float32. Every public
/// function that computes creates such an object after its arguments were checked. Every backward pass
/// creates one, too, since it may run under other autocast settings than its forward pass.
class ExactDtype {
 public:
  ExactDtype() : guard_(c10::autocast_dispatch_keyset) {}

 private:
  c10::impl::ExcludeDispatchKeyGuard guard_;
};

}  // namespace attend
