#include <attend/checkpointing.h>

#include "autograd/checkpoint.h"
#include "core/checks.h"

namespace attend {

at::Tensor checkpointed(const std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>& run,
                        const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor>& captured) {
  if (!run) checks::fail("checkpointed", "run", "a function", "none");
  for (const auto& tensor : captured) {
    if (!tensor.defined()) checks::fail("checkpointed", "captured", "defined tensors", "an undefined tensor");
  }
  return autograd::checkpointed(run, inputs, captured);
}

}  // namespace attend
