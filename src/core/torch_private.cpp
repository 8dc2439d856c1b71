#include "core/torch_private.h"

#include <ATen/SDPBackend.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/autocast_mode.h>
#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>
#include <ATen/functorch/PlumbingHelper.h>
#include <ATen/functorch/TensorWrapper.h>
#include <ATen/ops/_fused_sdp_choice.h>

#include <algorithm>
#include <utility>

namespace attend::torch_private {

bool is_subclass_like(const at::Tensor& tensor) {
  return tensor.defined() && at::isTensorSubclassLike(tensor);
}

bool has_symbolic_sizes(at::TensorList tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) {
    return tensor.defined() && tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
  });
}

bool has_transforms() {
  return at::functorch::functorchTLSAccessor() != nullptr && !at::functorch::getDynamicLayerStack().empty();
}

HiddenTransforms::HiddenTransforms() : transforms_(std::move(at::functorch::functorchTLSAccessor())) {}

HiddenTransforms::~HiddenTransforms() { show(); }

void HiddenTransforms::show() const {
  if (transforms_) at::functorch::functorchTLSAccessor() = std::move(transforms_);
}

GradLevel::GradLevel() {
  if (!has_transforms()) return;
  number_ =
      at::functorch::initAndPushDynamicLayer(at::functorch::TransformType::Grad, std::nullopt, std::nullopt,
                                             /*prev_grad_mode=*/true);
}

GradLevel::~GradLevel() {
  if (is_active()) at::functorch::popDynamicLayerAndDeleteMetadata();
}

std::vector<at::Tensor> GradLevel::wrap(std::vector<at::Tensor> tensors) const {
  if (!is_active()) return tensors;
  for (auto& tensor : tensors) {
    if (tensor.defined())
      tensor = at::functorch::makeTensorWrapper(at::functorch::unwrapIfDead(tensor), number_);
  }
  return tensors;
}

std::vector<at::Tensor> GradLevel::unwrap(std::vector<at::Tensor> tensors) const {
  if (!is_active()) return tensors;
  for (auto& tensor : tensors) {
    const auto* wrapper = tensor.defined() ? at::functorch::maybeGetTensorWrapper(tensor) : nullptr;
    if (wrapper != nullptr && wrapper->level() == number_) tensor = wrapper->value();
  }
  return tensors;
}

VmappedTensor unwrap_vmapped(const at::Tensor& tensor) {
  const auto level = at::functorch::maybeCurrentDynamicLayer()->layerId();
  auto [value, dim] = at::functorch::unwrapTensorAtLevel(tensor, level);
  return {.value = value, .dim = dim};
}

at::Tensor wrap_vmapped(const at::Tensor& value, int64_t dim) {
  return at::functorch::makeBatched(value, dim, at::functorch::maybeCurrentDynamicLayer()->layerId());
}

bool is_lazy(const at::Tensor& tensor) { return tensor.is_neg() || tensor._is_zerotensor(); }

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
