#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "checkpoint/mapped_file.h"

namespace attend::checkpoint {

/// Where the contents of a file in a zip archive lie.
struct ZipEntry {
  uint64_t offset;
  uint64_t size;
};

/// The files of a zip archive by name. Fails where the archive is damaged, or holds a file that is compressed
/// or encrypted, occurs twice, or overlaps another.
std::unordered_map<std::string, ZipEntry> read_zip(const Source& source);

/// Fails in the words for an archive of C++'s torch::save, which holds code.
[[noreturn]] void fail_as_of_cpp(const Source& source);

}  // namespace attend::checkpoint
