#include "ops/call.h"

#include <ATen/autocast_mode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <algorithm>

#include "core/tangents.h"

namespace attend::ops {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

constexpr DispatchKeySet kTransforms({DispatchKey::FuncTorchGradWrapper, DispatchKey::FuncTorchBatched});
constexpr DispatchKeySet kTracers({DispatchKey::Python, DispatchKey::Functionalize});

bool any_has(const std::vector<at::Tensor>& tensors, DispatchKeySet keys) {
  return std::any_of(tensors.begin(), tensors.end(), [keys](const at::Tensor& tensor) {
    return tensor.defined() && tensor.key_set().has_any(keys);
  });
}

}  // namespace

Stack call(const char* name, Stack arguments) {
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxed(arguments);
  return arguments;
}

bool is_traced(const std::vector<at::Tensor>& tensors) {
  const auto device = tensors.front().device();
  if (device.is_meta()) return true;
  if (!device.is_cpu() || is_transformed(tensors)) return false;
  if (std::any_of(tensors.begin(), tensors.end(), has_tangent)) return false;
  return c10::impl::dispatch_mode_enabled() || any_has(tensors, kTracers);
}

bool is_transformed(const std::vector<at::Tensor>& tensors) { return any_has(tensors, kTransforms); }

bool is_differentiated(const std::vector<at::Tensor>& tensors) {
  return at::GradMode::is_enabled() && std::any_of(tensors.begin(), tensors.end(), [](const auto& tensor) {
           return tensor.defined() && tensor.requires_grad();
         });
}

bool has_symbolic_sizes(const std::vector<at::Tensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  });
}

void autocast(const c10::OperatorHandle& op, Stack* stack) {
  const c10::impl::ExcludeDispatchKeyGuard once(c10::autocast_dispatch_keyset);
  auto arguments = torch::jit::last(*stack, op.schema().arguments().size());
  const auto device = arguments.front().toTensor().device().type();
  const auto dtype = at::autocast::get_autocast_dtype(device);
  for (size_t n = 0; n < arguments.size(); ++n) {
    if (!arguments[n].isTensor()) continue;
    const auto tensor = arguments[n].toTensor();
    if (n >= 3 && tensor.scalar_type() == at::kFloat) continue;
    (*stack)[stack->size() - arguments.size() + n] = at::autocast::cached_cast(dtype, tensor, device);
  }
  op.callBoxed(*stack);
}

}  // namespace attend::ops
