// torch.ops.attend.linear_attention: as in attend/linear_attention.h.
//
// On the CPU it calls the private operators, which have the gradients and the rule for vmap. On other devices
// it calls the function of C++, which consists of ATen's operations there.
#include <torch/library.h>

#include "core/exact_dtype.h"
#include "ops/linear_attention_arguments.h"
#include "ops/linear_attention_kernels.h"

namespace attend::ops {
namespace {

/// The output and the final state.
using LinearResult = std::tuple<at::Tensor, at::Tensor>;

LinearResult linear_attention(const LinearArguments& in) {
  if (has_private_operators(in.query)) {
    to_call(in);  // checks the arguments
    const auto [output, final_state, normaliser, unrounded] = call_linear_forward(in);
    return {output, final_state};
  }
  const auto result = attend::linear_attention(in.query, in.key, in.value, to_params(in));
  return {result.output, result.final_state};
}

/// The same under vmap, where the tensors are not seen by the kernel of autocast.
LinearResult vmapped_linear_attention(const LinearArguments& in) {
  const auto cast = with_autocast(in);
  const ExactDtype exact;
  return linear_attention(cast);
}

TORCH_LIBRARY_FRAGMENT(attend, library) {
  const std::vector<at::Tag> tags = {at::Tag::pt2_compliant_tag};
  library.def(("linear_attention(" + kLinearSchema + ") -> (Tensor output, Tensor final_state)").c_str(),
              tags);
}

void implement_linear_attention(torch::Library& library) {
  library.impl("linear_attention", TORCH_FN(LinearOperator<linear_attention>::call));
}

// One implementation for all dispatch keys: it consists of operators that are differentiable themselves.
TORCH_LIBRARY_IMPL(attend, Autograd, library) { implement_linear_attention(library); }
TORCH_LIBRARY_IMPL(attend, CPU, library) { implement_linear_attention(library); }
TORCH_LIBRARY_IMPL(attend, CUDA, library) { implement_linear_attention(library); }
TORCH_LIBRARY_IMPL(attend, Meta, library) { implement_linear_attention(library); }

TORCH_LIBRARY_IMPL(attend, FuncTorchVmapMode, library) {
  library.impl("linear_attention", TORCH_FN(LinearOperator<vmapped_linear_attention>::call));
}

}  // namespace
}  // namespace attend::ops
