#include "core/torch_private.h"

#include <ATen/EmptyTensor.h>
#include <ATen/SDPBackend.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

#include <algorithm>

namespace attend::torch_private {
namespace {

using c10::DispatchKey;
using c10::DispatchKeySet;

constexpr DispatchKeySet kTransforms({DispatchKey::FuncTorchGradWrapper, DispatchKey::FuncTorchBatched});
constexpr DispatchKeySet kTracers({DispatchKey::Python, DispatchKey::Functionalize});

bool any_has(at::TensorList tensors, DispatchKeySet keys) {
  return std::any_of(tensors.begin(), tensors.end(), [keys](const at::Tensor& tensor) {
    return tensor.defined() && tensor.key_set().has_any(keys);
  });
}

}  // namespace

bool is_subclass_like(const at::Tensor& tensor) {
  return tensor.defined() && at::isTensorSubclassLike(tensor);
}

bool has_transform(at::TensorList tensors) { return any_has(tensors, kTransforms); }

bool has_tracer(at::TensorList tensors) {
  return c10::impl::dispatch_mode_enabled() || any_has(tensors, kTracers);
}

bool has_symbolic_sizes(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  });
}

bool is_lazy(const at::Tensor& tensor) { return tensor.is_neg() || tensor._is_zerotensor(); }

at::Tensor empty_on_cpu(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::Tensor(at::detail::empty_cpu(sizes, dtype));
}

void bump_version(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

Autocast autocast_of(at::DeviceType device) {
  return {.is_enabled = at::autocast::is_autocast_enabled(device),
          .dtype = at::autocast::get_autocast_dtype(device)};
}

void set_autocast(at::DeviceType device, const Autocast& autocast) {
  at::autocast::set_autocast_enabled(device, autocast.is_enabled);
  at::autocast::set_autocast_dtype(device, autocast.dtype);
}

at::Tensor autocast_tensor(const at::Tensor& tensor, at::DeviceType device) {
  return at::autocast::cached_cast(at::autocast::get_autocast_dtype(device), tensor, device);
}

bool has_fused_sdpa(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const std::optional<at::Tensor>& attn_mask, bool is_causal, double scale) {
  const auto choice =
      at::_fused_sdp_choice(query, key, value, attn_mask, /*dropout_p=*/0.0, is_causal, scale);
  return choice != static_cast<int64_t>(at::SDPBackend::math);
}

}  // namespace attend::torch_private
