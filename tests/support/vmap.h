#pragma once

// The transform torch.func.vmap in C++.

#include <ATen/functorch/BatchedTensorImpl.h>
#include <ATen/functorch/DynamicLayer.h>
#include <gtest/gtest.h>

#include <functional>

namespace attend::testing {

/// Returns function(slice) for every slice of the first dimension of `tensor`, stacked in the first
/// dimension. The function is called once, with a batched tensor.
inline at::Tensor vmap(const std::function<at::Tensor(const at::Tensor&)>& function,
                       const at::Tensor& tensor) {
  using namespace at::functorch;
  struct Level {
    explicit Level(int64_t size)
        : number(initAndPushDynamicLayer(TransformType::Vmap, c10::SymInt(size), RandomnessType::Error)) {}
    ~Level() { popDynamicLayerAndDeleteMetadata(); }
    int64_t number;
  } level(tensor.size(0));
  const auto result = function(makeBatched(tensor, 0, level.number));
  const auto* batched = maybeGetBatchedImpl(result);
  EXPECT_NE(batched, nullptr) << "the result does not depend on the batched tensor";
  return batched->value().movedim(batched->bdim(), 0);
}

}  // namespace attend::testing
