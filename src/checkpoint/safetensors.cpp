#include <ATen/TensorOperators.h>
#include <attend/checkpoint.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "checkpoint/atomic_file.h"
#include "checkpoint/dtype_names.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/safetensors_header.h"
#include "core/checks.h"

// A file is: the length of the header, 8 bytes, little-endian; the header, JSON; the tensors' bytes.

namespace attend {
namespace {

using checkpoint::SafetensorsHeader;
using checkpoint::shown;
using checkpoint::Source;
using checkpoint::TensorEntry;

constexpr uint64_t kPrefix = 8;
constexpr uint64_t kLongestHeader = 100'000'000;

std::string_view header_text(const Source& source) {
  if (source.size() < kPrefix) source.fail("at least 8 bytes", c10::str(source.size(), " bytes"));
  uint64_t length = 0;
  std::memcpy(&length, source.data(), kPrefix);
  if (length > kLongestHeader)
    source.fail(c10::str("a header of at most ", kLongestHeader, " bytes"),
                c10::str(length, ": this is no safetensors file"));
  if (length > source.size() - kPrefix) {
    source.fail(c10::str("a header of ", length, " bytes"),
                c10::str(source.size() - kPrefix, " bytes after its length"));
  }
  return {source.data() + kPrefix, length};
}

/// The number of a tensor's bytes. Fails where that, or a stride, is beyond 64 bits.
uint64_t byte_size(const Source& source, const TensorEntry& entry) {
  int64_t extent = static_cast<int64_t>(c10::elementSize(entry.dtype));
  bool is_empty = false;
  for (const auto size : entry.shape) {
    is_empty |= size == 0;
    if (__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent)) {
      source.fail("a size below 2^63 bytes for " + shown(entry.name), c10::str("the shape ", entry.shape));
    }
  }
  return is_empty ? 0 : static_cast<uint64_t>(extent);
}

/// Fails unless the tensors follow each other without holes and overlaps, and fill the `size` bytes of data.
void check_layout(const Source& source, const std::vector<TensorEntry>& entries, uint64_t size) {
  std::vector<const TensorEntry*> by_offset;
  by_offset.reserve(entries.size());
  for (const auto& entry : entries) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* left, const auto* right) {
    return std::pair(left->begin, left->end) < std::pair(right->begin, right->end);
  });
  uint64_t position = 0;
  for (const auto* entry : by_offset) {
    const auto where = c10::str(entry->begin, " to ", entry->end);
    if (entry->begin != position || entry->end < entry->begin) {
      source.fail(c10::str("the data of ", shown(entry->name), " to begin at ", position,
                           ", where that before it ends"),
                  where);
    }
    const auto bytes = byte_size(source, *entry);
    if (entry->end - entry->begin != bytes) {
      source.fail(c10::str(bytes, " bytes for ", shown(entry->name)), where);
    }
    position = entry->end;
  }
  if (position != size) source.fail(c10::str(position, " bytes of data"), c10::str(size));
}

Checkpoint read(const Source& source) {
  const auto text = header_text(source);
  auto header = checkpoint::read_header(source, text);
  const uint64_t start = kPrefix + text.size();
  check_layout(source, header.entries, source.size() - start);
  Checkpoint checkpoint;
  checkpoint.metadata = std::move(header.metadata);
  checkpoint.tensors.reserve(header.entries.size());
  for (const auto& entry : header.entries) {
    const uint64_t count = (entry.end - entry.begin) / c10::elementSize(entry.dtype);
    checkpoint.tensors.insert(entry.name,
                              elements(source, start + entry.begin, count, entry.dtype).view(entry.shape));
  }
  return checkpoint;
}

// ---- writing

void check_tensor(const std::string& name, const at::Tensor& tensor) {
  const auto argument = "tensor " + shown(name);
  checks::is_strided("save_safetensors", argument.c_str(), tensor);
  if (name == "__metadata__") {
    checks::fail("save_safetensors", argument.c_str(), "another name", "that of the metadata");
  }
  if (name_of(&checkpoint::DtypeNames::safetensors, tensor.scalar_type()).empty()) {
    checks::fail("save_safetensors", argument.c_str(), "a dtype that the format has",
                 checks::describe(tensor));
  }
}

/// The header, its entries in the checkpoint's order, and in `order` the places of the tensors in the file:
/// wide dtypes first, so that each is aligned.
SafetensorsHeader layout(const Checkpoint& checkpoint, std::vector<size_t>& order) {
  SafetensorsHeader header;
  header.metadata = checkpoint.metadata;
  for (const auto& item : checkpoint.tensors) {
    check_tensor(item.key(), item.value());
    header.entries.push_back({item.key(), item.value().scalar_type(), item.value().sizes().vec(), 0, 0});
  }
  order.resize(header.entries.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t left, size_t right) {
    return c10::elementSize(header.entries[left].dtype) > c10::elementSize(header.entries[right].dtype);
  });
  uint64_t position = 0;
  for (const auto index : order) {
    header.entries[index].begin = position;
    position += checkpoint.tensors[index].value().nbytes();
    header.entries[index].end = position;
  }
  return header;
}

std::string text_of(const SafetensorsHeader& header) {
  try {
    auto text = write_header(header);
    text.append((kPrefix - text.size() % kPrefix) % kPrefix, ' ');
    return text;
  } catch (const nlohmann::json::exception&) {
    checks::fail("save_safetensors", "checkpoint", "names and metadata in UTF-8", "other bytes");
  }
}

}  // namespace

Checkpoint load_safetensors(const std::string& path) {
  return read(checkpoint::map_file("load_safetensors", path));
}

Checkpoint parse_safetensors(const at::Tensor& bytes) {
  return read(checkpoint::source_of("parse_safetensors", bytes));
}

void save_safetensors(const Checkpoint& checkpoint, const std::string& path) {
  std::vector<size_t> order;
  const auto text = text_of(layout(checkpoint, order));
  if (text.size() > kLongestHeader) {
    checks::fail("save_safetensors", "checkpoint", c10::str("a header of at most ", kLongestHeader, " bytes"),
                 c10::str(text.size()));
  }
  checkpoint::AtomicFile file("save_safetensors", path);
  const uint64_t length = text.size();
  file.write(&length, kPrefix);
  file.write(text.data(), text.size());
  for (const auto index : order) {
    const auto tensor =
        checkpoint.tensors[index].value().detach().cpu().contiguous().resolve_conj().resolve_neg();
    file.write(tensor.const_data_ptr(), tensor.nbytes());
  }
  file.commit();
}

}  // namespace attend
