#pragma once

// The functions of LibTorch that attend uses although they are neither documented nor stable, in one place,
// so that a new version of LibTorch can break only torch_private.cpp. `torch::autograd::Function`
// (torch/csrc/autograd/custom_function.h) is not among them, since the C++ frontend documents it.

#include <ATen/FuncTorchTLS.h>
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

namespace attend::torch_private {

/// Whether the tensor is an instance of a Python subclass, or is wrapped by a transform of torch.func, so
/// that its elements cannot be read through a pointer. False for an undefined tensor.
bool is_subclass_like(const at::Tensor& tensor);

/// Whether a size of the tensors, of which some may be undefined, is symbolic, as under torch.compile with
/// dynamic shapes.
bool has_symbolic_sizes(at::TensorList tensors);

/// Whether a transform of torch.func is active on this thread.
bool has_transforms();

/// Hides the transforms of torch.func on this thread until `show` is called, since the check at the beginning
/// of `torch::autograd::Function::apply` refuses them. Such a function is right where a single level of them
/// is visible: in the Autograd kernel of an operator. Its `forward` must call `show` first.
class HiddenTransforms {
 public:
  HiddenTransforms();
  ~HiddenTransforms();
  HiddenTransforms(const HiddenTransforms&) = delete;
  HiddenTransforms& operator=(const HiddenTransforms&) = delete;

  void show() const;

 private:
  mutable std::unique_ptr<at::functorch::FuncTorchTLSBase> transforms_;
};

/// While it lives, and if transforms of torch.func are active, a further level of torch.func.grad, on which
/// gradients are recorded also for tensors that vmap batches.
class GradLevel {
 public:
  GradLevel();
  ~GradLevel();
  GradLevel(const GradLevel&) = delete;
  GradLevel& operator=(const GradLevel&) = delete;

  bool is_active() const { return number_ > 0; }
  std::vector<at::Tensor> wrap(std::vector<at::Tensor> tensors) const;
  std::vector<at::Tensor> unwrap(std::vector<at::Tensor> tensors) const;

 private:
  int64_t number_ = 0;  ///< that of the level, from 1
};

/// A tensor under the innermost vmap: the tensor of all slices, and their dimension; the tensor itself and no
/// dimension if it does not vary between slices.
struct VmappedTensor {
  at::Tensor value;
  std::optional<int64_t> dim;
};
VmappedTensor unwrap_vmapped(const at::Tensor& tensor);

/// The reverse of `unwrap_vmapped`.
at::Tensor wrap_vmapped(const at::Tensor& value, int64_t dim);

/// Whether the tensor has the negative bit set, so that its elements are the negatives of the values in
/// memory, or is a ZeroTensor, which has no memory.
bool is_lazy(const at::Tensor& tensor);

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
