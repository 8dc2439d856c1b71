#pragma once

// Sizes, infinities and scratch memory, for every kernel.

#include "cpu/simd/vec.h"

namespace attend::cpu {
namespace {

template <typename T>
constexpr T kInfinity = static_cast<T>(__builtin_inff());

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
template <typename T>
constexpr int64_t padded(int64_t size) {
  return (size + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

/// Hands out parts of a scratch buffer, each aligned to 64 bytes. With a null buffer it only counts.
class Scratch {
 public:
  explicit Scratch(void* buffer) : buffer_(static_cast<char*>(buffer)) {}

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

}  // namespace
}  // namespace attend::cpu
