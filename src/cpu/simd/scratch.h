#pragma once

#include <cstdint>

#include "cpu/simd/vec.h"

namespace attend::cpu {
namespace {

/// Allocates consecutive arrays in a buffer, each aligned to 64 bytes. With a null buffer it only counts the
/// bytes.
class ScratchAllocator {
 public:
  explicit ScratchAllocator(void* buffer) : buffer_(static_cast<char*>(buffer)) {}

  template <typename T>
  T* take(int64_t count) {
    T* part = buffer_ == nullptr ? nullptr : reinterpret_cast<T*>(buffer_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return part;
  }
  int64_t used() const { return used_; }

 private:
  char* buffer_;
  int64_t used_ = 0;
};

/// Returns the number of bytes that a struct S of scratch arrays takes from its allocator. S must have a
/// constructor with an allocator and the arguments of a kernel.
template <typename S, typename Args>
int64_t scratch_bytes(const Args& args) {
  ScratchAllocator allocator(nullptr);
  const S scratch(allocator, args);
  return allocator.used();
}

}  // namespace
}  // namespace attend::cpu
