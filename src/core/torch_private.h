#pragma once

// What attend uses of LibTorch that is neither documented nor stable, in one place, so that a new version of
// LibTorch can break only torch_private.cpp. Not here: `torch::autograd::Function`
// (torch/csrc/autograd/custom_function.h), which the C++ frontend documents.

#include <ATen/core/Tensor.h>

#include <optional>

namespace attend::torch_private {

/// Whether the tensor is of a Python subclass, or is wrapped by a transform of torch.func, so that its
/// elements cannot be read through a pointer. False for an undefined tensor.
bool is_subclass_like(const at::Tensor& tensor);

/// Whether one of the tensors, of which some may be undefined, is wrapped by a transform of torch.func.
bool has_transform(at::TensorList tensors);

/// Whether a tracer, such as torch.compile, fake tensors or a dispatch mode, records operations on the
/// tensors, of which some may be undefined.
bool has_tracer(at::TensorList tensors);

/// Whether a size of the tensors, of which some may be undefined, is a symbol, as under torch.compile with
/// dynamic shapes.
bool has_symbolic_sizes(at::TensorList tensors);

/// Whether the elements of the tensor are the negatives of what is in memory, or zeros without memory.
bool is_lazy(const at::Tensor& tensor);

/// A contiguous tensor on the CPU with uninitialised elements, which no transform of torch.func wraps, as it
/// would wrap the result of at::empty.
at::Tensor empty_on_cpu(at::IntArrayRef sizes, at::ScalarType dtype);

/// Records that the elements of the tensor were changed in place through a pointer.
void bump_version(const at::Tensor& tensor);

/// The autocast settings of a kind of device on this thread.
struct Autocast {
  bool is_enabled;
  at::ScalarType dtype;
};
Autocast autocast_of(at::DeviceType device);
void set_autocast(at::DeviceType device, const Autocast& autocast);

/// The tensor in autocast's dtype for this kind of device, if autocast would cast it for ATen's operations:
/// not float64, integers, or a tensor on another kind of device.
at::Tensor autocast_tensor(const at::Tensor& tensor, at::DeviceType device);

/// Whether at::scaled_dot_product_attention, called with these arguments without dropout, uses a fused kernel
/// rather than building the scores.
bool has_fused_sdpa(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const std::optional<at::Tensor>& attn_mask, bool is_causal, double scale);

}  // namespace attend::torch_private
