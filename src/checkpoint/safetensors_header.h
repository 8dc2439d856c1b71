#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/mapped_file.h"

namespace attend::checkpoint {

/// What the header of a safetensors file says of a tensor.
struct TensorEntry {
  std::string name;
  at::ScalarType dtype = at::kByte;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  ///< of its bytes, from the end of the header
};

struct SafetensorsHeader {
  std::vector<TensorEntry> entries;  ///< in the order of the text
  std::map<std::string, std::string> metadata;
};

/// Reads the JSON of a header. Fails, in the name of the source, where it is not JSON of just this form.
SafetensorsHeader read_header(const Source& source, std::string_view text);

/// The JSON of a header; its entries' sizes and offsets are taken as they are.
std::string write_header(const SafetensorsHeader& header);

}  // namespace attend::checkpoint
