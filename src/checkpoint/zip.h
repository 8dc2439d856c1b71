#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "checkpoint/mapped_file.h"

namespace attend::checkpoint {

/// The position, in bytes, of the data of a member in a zip archive.
struct ZipEntry {
  uint64_t offset;
  uint64_t size;
};

/// Returns the members of a zip archive by name. Fails if the archive is damaged, or a member is compressed,
/// encrypted, listed twice or overlaps another.
std::unordered_map<std::string, ZipEntry> read_zip(const Source& source);

/// Fails with the message that the archive is a TorchScript archive, which torch::save of C++ writes and
/// which contains code.
[[noreturn]] void fail_as_torchscript(const Source& source);

}  // namespace attend::checkpoint
