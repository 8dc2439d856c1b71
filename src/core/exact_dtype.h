#pragma once

#include <c10/core/impl/LocalDispatchKeySet.h>

namespace attend {

/// While it lives, ATen's operations on this thread keep the dtypes of their tensors, even under autocast,
/// which would round to a half type what is defined to accumulate in float32. Every public function that
/// computes creates one after its arguments were checked, and so does every backward pass, which may run
/// under another autocast than its forward pass.
class ExactDtype {
 public:
  ExactDtype() : guard_(c10::autocast_dispatch_keyset) {}

 private:
  c10::impl::ExcludeDispatchKeyGuard guard_;
};

}  // namespace attend
