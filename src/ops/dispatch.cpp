#include "ops/dispatch.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "core/exact_dtype.h"
#include "core/torch_private.h"

namespace attend::ops {
namespace {

/// The first arguments of every schema are query, key and value.
constexpr size_t kNumInputs = 3;

/// Calls an operator with its tensors converted as by `autocast`. The function is boxed, since it is the same
/// for every schema.
void call_with_autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const size_t count = op.schema().arguments().size(), first = stack->size() - count;
  std::vector<at::Tensor> tensors(count);
  std::vector<at::Tensor*> pointers;
  for (size_t n = 0; n < count; ++n) {
    if ((*stack)[first + n].isTensor()) tensors[n] = (*stack)[first + n].toTensor();
    pointers.push_back(&tensors[n]);
  }
  autocast(pointers);
  for (size_t n = 0; n < count; ++n) {
    if (tensors[n].defined()) (*stack)[first + n] = tensors[n];
  }
  const ExactDtype exact;
  op.callBoxed(*stack);
}

void implement_autocast(torch::Library& library) {
  for (const auto* name : {"attention", "attention_with_lse", "linear_attention"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<call_with_autocast>());
  }
}

TORCH_LIBRARY_IMPL(attend, AutocastCPU, library) { implement_autocast(library); }
TORCH_LIBRARY_IMPL(attend, AutocastCUDA, library) { implement_autocast(library); }

}  // namespace

at::Tensor empty_contiguous(const at::Tensor& tensor) {
  return at::empty_symint(tensor.sym_sizes(), tensor.options());
}

bool has_private_operators(const at::Tensor& tensor) { return tensor.is_cpu() || tensor.is_meta(); }

void autocast(c10::ArrayRef<at::Tensor*> tensors) {
  const auto device = tensors[0]->device().type();
  if (!torch_private::autocast_of(device).is_enabled) return;
  for (size_t n = 0; n < tensors.size(); ++n) {
    auto& tensor = *tensors[n];
    if (!tensor.defined() || (n >= kNumInputs && tensor.scalar_type() == at::kFloat)) continue;
    tensor = torch_private::autocast_tensor(tensor, device);
  }
}

}  // namespace attend::ops
