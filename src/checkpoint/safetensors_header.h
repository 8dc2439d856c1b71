#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/mapped_file.h"

namespace attend::checkpoint {

/// A tensor, as the header of a safetensors file describes it.
struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kByte;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  ///< the range of the data, in bytes from the end of the header
};

struct SafetensorsHeader {
  std::vector<TensorEntry> entries;  ///< the tensors, in the order of the file
  std::map<std::string, std::string> metadata;
};

/// Parses the JSON of a header. Fails unless it has exactly the fields of the format. Whether shapes and
/// offsets fit each other is not checked.
SafetensorsHeader read_header(const Source& source, std::string_view text);

/// Returns the JSON of a header. Throws json::Utf8Error if a name or metadata is not UTF-8.
std::string write_header(const SafetensorsHeader& header);

}  // namespace attend::checkpoint
