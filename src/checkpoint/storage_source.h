#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace attend::checkpoint {

/// The storages of a file of torch.save.
class StorageSource {
 public:
  StorageSource() = default;
  StorageSource(const StorageSource&) = delete;
  StorageSource& operator=(const StorageSource&) = delete;
  virtual ~StorageSource() = default;

  /// Returns a storage as a tensor [count]. Fails if there is no such storage, or its size is not that of
  /// `count` elements.
  virtual at::Tensor storage(std::string_view key, uint64_t count, at::ScalarType dtype) const = 0;
};

}  // namespace attend::checkpoint
