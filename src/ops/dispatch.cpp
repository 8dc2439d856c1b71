#include "ops/dispatch.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/library.h>

#include <algorithm>

#include "core/gradients.h"

namespace attend::ops {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

constexpr DispatchKeySet kTransforms({DispatchKey::FuncTorchGradWrapper, DispatchKey::FuncTorchBatched});
constexpr DispatchKeySet kTracers({DispatchKey::Python, DispatchKey::Functionalize});

/// The first arguments of every schema are query, key and value.
constexpr size_t kNumInputs = 3;

bool any_has(at::TensorList tensors, DispatchKeySet keys) {
  return std::any_of(tensors.begin(), tensors.end(), [keys](const at::Tensor& tensor) {
    return tensor.defined() && tensor.key_set().has_any(keys);
  });
}

/// Query, key and value in autocast's dtype, the other tensors in it or float32. Boxed, since it is the same
/// for every schema.
void autocast(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard without_autocast(c10::autocast_dispatch_keyset);
  const size_t count = op.schema().arguments().size();
  const size_t first = stack->size() - count;
  const auto device = (*stack)[first].toTensor().device().type();
  const auto dtype = at::autocast::get_autocast_dtype(device);
  for (size_t n = 0; n < count; ++n) {
    auto& argument = (*stack)[first + n];
    if (!argument.isTensor()) continue;
    if (n >= kNumInputs && argument.toTensor().scalar_type() == at::kFloat) continue;
    argument = at::autocast::cached_cast(dtype, argument.toTensor(), device);
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
  if (!device.is_cpu() || is_transformed(tensors)) return false;
  if (std::any_of(tensors.begin(), tensors.end(), has_tangent)) return false;
  return c10::impl::dispatch_mode_enabled() || any_has(tensors, kTracers);
}

bool is_transformed(at::TensorList tensors) { return any_has(tensors, kTransforms); }

bool has_symbolic_sizes(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  });
}

}  // namespace attend::ops
