// vmap over the private operators: one call for each slice. A kernel computes whole calls, so that it needs
// no loop of its own over the slices; and each slice has the dropout seed that it would have alone.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/stack.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include "core/torch_private.h"

namespace attend::ops {
namespace {

using torch_private::VmappedTensor;

/// The arguments of a call under vmap.
struct VmappedCall {
  std::vector<c10::IValue> arguments;        ///< a tensor is that of all slices
  std::vector<std::optional<int64_t>> dims;  ///< the dimension of the slices, for tensors that have one
  int64_t num_slices = 0;
};

VmappedCall unwrap(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  VmappedCall call;
  call.arguments = torch::jit::pop(*stack, op.schema().arguments().size());
  for (auto& argument : call.arguments) {
    call.dims.emplace_back();
    if (!argument.isTensor() || !argument.toTensor().defined()) continue;
    const auto [value, dim] = torch_private::unwrap_vmapped(argument.toTensor());
    argument = value;
    call.dims.back() = dim;
    if (dim) call.num_slices = value.sym_size(*dim).guard_int(__FILE__, __LINE__);
  }
  return call;
}

/// Returns the results of the operator for one slice; for `slice` < 0, for a slice of zeros.
torch::jit::Stack call_slice(const c10::OperatorHandle& op, const VmappedCall& call, int64_t slice) {
  torch::jit::Stack stack;
  for (size_t n = 0; n < call.arguments.size(); ++n) {
    const auto& argument = call.arguments[n];
    if (!call.dims[n]) {
      stack.push_back(argument);
    } else if (slice < 0) {
      auto sizes = argument.toTensor().sym_sizes().vec();
      sizes.erase(sizes.begin() + *call.dims[n]);
      stack.emplace_back(argument.toTensor().new_zeros_symint(sizes));
    } else {
      stack.emplace_back(argument.toTensor().select(*call.dims[n], slice));
    }
  }
  op.callBoxed(stack);
  return stack;
}

void call_slices(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto call = unwrap(op, stack);
  std::vector<torch::jit::Stack> results;
  {
    const c10::impl::ExcludeDispatchKeyGuard below(c10::DispatchKey::FuncTorchBatched);
    const bool is_empty = call.num_slices == 0;
    for (int64_t slice = is_empty ? -1 : 0; slice < call.num_slices; ++slice) {
      results.push_back(call_slice(op, call, slice));
    }
    for (size_t n = 0; n < op.schema().returns().size(); ++n) {
      const auto& first = results[0][n];
      if (!first.isTensor() || !first.toTensor().defined()) {
        stack->emplace_back(at::Tensor());
        continue;
      }
      std::vector<at::Tensor> slices;
      for (const auto& result : results) slices.push_back(result[n].toTensor());
      const auto stacked = at::stack(slices);
      stack->emplace_back(torch_private::wrap_vmapped(is_empty ? stacked.slice(0, 0, 0) : stacked, 0));
    }
  }
}

TORCH_LIBRARY_IMPL(attend, FuncTorchBatched, library) {
  for (const auto* name : {"_attention_forward", "_attention_backward", "_linear_attention_forward",
                           "_linear_attention_backward"}) {
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<call_slices>());
  }
}

}  // namespace
}  // namespace attend::ops
