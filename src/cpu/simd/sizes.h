#pragma once

// Integer arithmetic of sizes and ranges. Everything in cpu/simd is in an anonymous namespace, since the
// linker must not share code between instruction sets.

#include <cstdint>

namespace attend::cpu {
namespace {

[[maybe_unused]] constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
[[maybe_unused]] constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
/// Returns the smallest multiple of `multiple` that is not below `size`.
[[maybe_unused]] constexpr int64_t round_up(int64_t size, int64_t multiple) {
  return divide_up(size, multiple) * multiple;
}

/// The integers begin ... end - 1.
struct Range {
  int64_t begin, end;
  bool is_empty() const { return begin >= end; }
};

}  // namespace
}  // namespace attend::cpu
