#pragma once

#include <ATen/core/Tensor.h>

#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

namespace attend::checkpoint {

static_assert(std::endian::native == std::endian::little,
              "the file formats are little-endian, and their integers and tensors are read in place");

/// The bytes of a file that is being read, and the names for error messages.
struct Source {
  const char* function;  ///< the public function that reads the file
  std::string name;      ///< the path, or the name of the argument with the bytes
  at::Tensor bytes;      ///< uint8 [N], contiguous, on the CPU

  const char* data() const { return static_cast<const char*>(bytes.const_data_ptr()); }
  uint64_t size() const { return static_cast<uint64_t>(bytes.numel()); }
  /// Throws c10::Error: "attend::function: name: expected ..., got ...".
  [[noreturn]] void fail(const std::string& expected, const std::string& got) const;
};

/// Maps a file into private memory: writing to the memory does not change the file.
Source map_file(const char* function, const std::string& path);

/// Returns a source with the contents `bytes`. Fails unless they are uint8 [N] on the CPU.
Source file_in_memory(const char* function, const at::Tensor& bytes);

/// Returns the `count` elements at byte `offset`, which must lie within the source, as a tensor [count]. The
/// tensor shares the memory of the source, but booleans and unaligned elements are copied.
at::Tensor tensor_at(const Source& source, uint64_t offset, uint64_t count, at::ScalarType dtype);

/// Returns text from a file in a form for error messages: in quotes, truncated to 80 bytes, and with escapes
/// for everything except printable ASCII characters.
std::string printable(std::string_view text);

}  // namespace attend::checkpoint
