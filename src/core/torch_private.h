#pragma once

// The functions of LibTorch that attend uses although they are neither documented nor stable, in one place,
// so that a new version of LibTorch can break only torch_private.cpp. `torch::autograd::Function`
// (torch/csrc/autograd/custom_function.h) is not among them, since the C++ frontend documents it.

#include <ATen/core/Tensor.h>

#include <optional>

namespace attend::torch_private {

/// Whether the tensor is an instance of a Python subclass, or is wrapped by a transform of torch.func, so
/// that its elements cannot be read through a pointer. False for an undefined tensor.
bool is_subclass_like(const at::Tensor& tensor);

/// Whether one of the tensors, of which some may be undefined, is wrapped by a transform of torch.func.
bool has_transform(at::TensorList tensors);

/// Whether operations on the tensors, of which some may be undefined, are intercepted: by torch.compile,
/// functionalization, fake tensors or a dispatch mode.
bool has_tracer(at::TensorList tensors);

/// Whether a size of the tensors, of which some may be undefined, is symbolic, as under torch.compile with
/// dynamic shapes.
bool has_symbolic_sizes(at::TensorList tensors);

/// Whether the tensor has the negative bit set, so that its elements are the negatives of the values in
/// memory, or is a ZeroTensor, which has no memory.
bool is_lazy(const at::Tensor& tensor);

/// Returns a contiguous, uninitialised tensor on the CPU. Unlike the result of at::empty, it is not wrapped
/// by a transform of torch.func.
at::Tensor empty_on_cpu(at::IntArrayRef sizes, at::ScalarType dtype);

/// Records that the elements of the tensor were changed in place through a pointer.
void bump_version(const at::Tensor& tensor);

/// The autocast settings of a device type on this thread.
struct Autocast {
  bool is_enabled;
  at::ScalarType dtype;
};
Autocast autocast_of(at::DeviceType device);
void set_autocast(at::DeviceType device, const Autocast& autocast);

/// Returns the tensor, converted to the autocast dtype of the device type if autocast would convert it for
/// ATen's operations: not if it is float64, an integer tensor, or on another device type.
at::Tensor autocast_tensor(const at::Tensor& tensor, at::DeviceType device);

/// Whether at::scaled_dot_product_attention, called with these arguments without dropout, uses a fused kernel
/// rather than storing all scores.
bool has_fused_sdpa(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const std::optional<at::Tensor>& attn_mask, bool is_causal, double scale);

}  // namespace attend::torch_private
