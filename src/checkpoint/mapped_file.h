#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace attend::checkpoint {

/// The bytes of a file that is being read, and how its errors name it.
struct Source {
  const char* function;
  std::string name;
  at::Tensor bytes;  ///< uint8 [N], contiguous, on the CPU

  const char* data() const { return static_cast<const char*>(bytes.const_data_ptr()); }
  uint64_t size() const { return static_cast<uint64_t>(bytes.numel()); }
  /// Throws c10::Error: "attend::function: name: expected ..., got ...".
  [[noreturn]] void fail(const std::string& expected, const std::string& got) const;
};

/// A file, mapped into memory; what is written there stays the process's own.
Source map_file(const char* function, const std::string& path);

/// A file in memory. Fails where `bytes` is not uint8 [N] on the CPU.
Source source_of(const char* function, const at::Tensor& bytes);

/// A tensor [count] of what lies at `offset`, inside the source. It shares the source's memory where the
/// dtype allows: booleans and unaligned elements are copied.
at::Tensor elements(const Source& source, uint64_t offset, uint64_t count, at::ScalarType dtype);

/// Text of a file as a message shows it: in quotes, cut where it is long, bytes outside ASCII as escapes.
std::string shown(std::string_view text);

}  // namespace attend::checkpoint
