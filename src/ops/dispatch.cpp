#include "ops/dispatch.h"

#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>

#include "core/exact_dtype.h"
#include "core/gradients.h"
#include "core/torch_private.h"

namespace attend::ops {
namespace {

/// The first arguments of every schema are query, key and value.
constexpr size_t kNumInputs = 3;

/// Converts query, key and value to the autocast dtype, and also other tensors unless they are float32. The
/// function is boxed, since it is the same for every schema.
void autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const ExactDtype exact;
  const size_t count = op.schema().arguments().size();
  const size_t first = stack->size() - count;
  const auto device = (*stack)[first].toTensor().device().type();
  for (size_t n = 0; n < count; ++n) {
    auto& argument = (*stack)[first + n];
    if (!argument.isTensor()) continue;
    if (n >= kNumInputs && argument.toTensor().scalar_type() == at::kFloat) continue;
    argument = torch_private::autocast_tensor(argument.toTensor(), device);
  }
  op.callBoxed(*stack);
}

void implement_autocast(torch::Library& library) {
  for (const auto* name : {"attention", "attention_with_lse", "linear_attention"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<autocast>());
  }
}

TORCH_LIBRARY_IMPL(attend, AutocastCPU, library) { implement_autocast(library); }
TORCH_LIBRARY_IMPL(attend, AutocastCUDA, library) { implement_autocast(library); }

}  // namespace

at::Tensor empty_contiguous(const at::Tensor& tensor) {
  return at::empty_symint(tensor.sym_sizes(), tensor.options());
}

bool is_traced(at::TensorList tensors) {
  const auto device = tensors.front().device();
  if (device.is_meta()) return true;
  if (!device.is_cpu() || torch_private::has_transform(tensors)) return false;
  if (std::any_of(tensors.begin(), tensors.end(), has_tangent)) return false;
  return torch_private::has_tracer(tensors);
}

}  // namespace attend::ops
