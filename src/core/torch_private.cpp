#include "core/torch_private.h"

#include <ATen/EmptyTensor.h>
#include <ATen/SDPBackend.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/_fused_sdp_choice.h>

namespace attend::torch_private {

bool is_subclass_like(const at::Tensor& tensor) {
  return tensor.defined() && at::isTensorSubclassLike(tensor);
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

bool has_fused_sdpa(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const std::optional<at::Tensor>& attn_mask, bool is_causal, double scale) {
  const auto choice =
      at::_fused_sdp_choice(query, key, value, attn_mask, /*dropout_p=*/0.0, is_causal, scale);
  return choice != static_cast<int64_t>(at::SDPBackend::math);
}

}  // namespace attend::torch_private
