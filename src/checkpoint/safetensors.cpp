#include <ATen/TensorOperators.h>
#include <attend/checkpoint.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "checkpoint/atomic_file.h"
#include "checkpoint/dtype_names.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/safetensors_header.h"
#include "core/checks.h"
#include "core/json.h"

// The format: the length of the header (8 bytes, little-endian), the header (JSON), the data of the tensors.

namespace attend {
namespace {

using checkpoint::printable;
using checkpoint::SafetensorsHeader;
using checkpoint::Source;
using checkpoint::TensorEntry;

constexpr uint64_t kLengthSize = 8;
constexpr uint64_t kMaxHeader = 100'000'000;

std::string_view header_text(const Source& source) {
  if (source.size() < kLengthSize)
    source.fail("a safetensors file of at least 8 bytes", c10::str(source.size(), " bytes"));
  uint64_t length = 0;
  std::memcpy(&length, source.data(), kLengthSize);
  if (length > kMaxHeader)
    source.fail(c10::str("a header of at most ", kMaxHeader, " bytes"),
                c10::str(length, "; this is not a safetensors file"));
  if (length > source.size() - kLengthSize) {
    source.fail(c10::str("a header of ", length, " bytes"),
                c10::str(source.size() - kLengthSize, " bytes after its length"));
  }
  return {source.data() + kLengthSize, length};
}

/// Returns the size of a tensor in bytes. Fails if the size or a stride exceeds 63 bits.
uint64_t byte_size(const Source& source, const TensorEntry& entry) {
  int64_t extent = static_cast<int64_t>(c10::elementSize(entry.dtype));
  bool is_empty = false;
  for (const auto size : entry.shape) {
    is_empty |= size == 0;
    if (__builtin_mul_overflow(extent, std::max<int64_t>(size, 1), &extent)) {
      source.fail("a size below 2^63 bytes for " + printable(entry.name),
                  c10::str("the shape ", entry.shape));
    }
  }
  return is_empty ? 0 : static_cast<uint64_t>(extent);
}

/// Fails unless the tensors fill the `size` bytes of data without gaps and overlaps.
void check_layout(const Source& source, const std::vector<TensorEntry>& entries, uint64_t size) {
  std::vector<const TensorEntry*> by_offset;
  by_offset.reserve(entries.size());
  for (const auto& entry : entries) by_offset.push_back(&entry);
  std::sort(by_offset.begin(), by_offset.end(), [](const auto* left, const auto* right) {
    return std::pair(left->begin, left->end) < std::pair(right->begin, right->end);
  });
  uint64_t position = 0;
  for (const auto* entry : by_offset) {
    const auto where = c10::str("bytes ", entry->begin, " to ", entry->end);
    if (entry->begin != position || entry->end < entry->begin) {
      source.fail(c10::str("the data of ", printable(entry->name), " to begin at ", position,
                           ", where the previous data ends"),
                  where);
    }
    const auto bytes = byte_size(source, *entry);
    if (entry->end - entry->begin != bytes) {
      source.fail(c10::str(bytes, " bytes of data for ", printable(entry->name)), where);
    }
    position = entry->end;
  }
  if (position != size) source.fail(c10::str(position, " bytes of data"), c10::str(size, " bytes"));
}

StateDict read_safetensors(const Source& source) {
  const auto text = header_text(source);
  auto header = checkpoint::read_header(source, text);
  const uint64_t start = kLengthSize + text.size();
  check_layout(source, header.entries, source.size() - start);
  StateDict state_dict;
  state_dict.metadata = std::move(header.metadata);
  state_dict.tensors.reserve(header.entries.size());
  for (const auto& entry : header.entries) {
    const uint64_t count = (entry.end - entry.begin) / c10::elementSize(entry.dtype);
    state_dict.tensors.insert(entry.name,
                              tensor_at(source, start + entry.begin, count, entry.dtype).view(entry.shape));
  }
  return state_dict;
}

// ---- writing

/// Returns the number of elements between the first and the last element in memory, inclusive.
int64_t extent_of(const at::Tensor& tensor) {
  int64_t extent = tensor.numel() == 0 ? 0 : 1;
  for (int64_t n = 0; n < tensor.dim() && extent > 0; ++n) extent += (tensor.size(n) - 1) * tensor.stride(n);
  return extent;
}

void check_tensor(const std::string& name, const at::Tensor& tensor) {
  const auto argument = "tensor " + printable(name);
  checks::check_strided("save_safetensors", argument.c_str(), tensor);
  if (tensor.is_meta()) {
    checks::fail("save_safetensors", argument.c_str(), "a tensor with data", "a tensor on the meta device");
  }
  if (name == "__metadata__") {
    checks::fail("save_safetensors", argument.c_str(), "a name other than that of the metadata",
                 "the same name");
  }
  if (checkpoint::dtype_name(&checkpoint::DtypeNames::safetensors, tensor.scalar_type()).empty()) {
    checks::fail("save_safetensors", argument.c_str(), "a dtype that safetensors has",
                 checks::describe(tensor));
  }
  if (tensor.scalar_type() == at::ScalarType::Float4_e2m1fn_x2 && tensor.dim() == 0) {
    checks::fail("save_safetensors", argument.c_str(), "at least one dimension for this dtype",
                 checks::describe(tensor));
  }
  if (const auto extent = extent_of(tensor); extent < tensor.numel()) {
    checks::fail(
        "save_safetensors", argument.c_str(),
        "a tensor whose elements do not share memory (contiguous() makes one)",
        c10::str(checks::describe(tensor), ", ", tensor.numel(), " elements in the memory of ", extent));
  }
}

/// Returns the header of a file, which lists the tensors in the given order. The data are stored in the order
/// of decreasing element size, so that all data are aligned; `order` receives the indices of the tensors in
/// this order.
SafetensorsHeader layout(const StateDict& state_dict, std::vector<size_t>& order) {
  SafetensorsHeader header;
  header.metadata = state_dict.metadata;
  for (const auto& item : state_dict.tensors) {
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
    position += state_dict.tensors[index].value().nbytes();
    header.entries[index].end = position;
  }
  return header;
}

std::string padded_header(const SafetensorsHeader& header) {
  try {
    auto text = write_header(header);
    text.append((kLengthSize - text.size() % kLengthSize) % kLengthSize, ' ');
    return text;
  } catch (const json::Utf8Error&) {
    checks::fail("save_safetensors", "state_dict", "names and metadata in UTF-8", "text that is not UTF-8");
  }
}

}  // namespace

StateDict load_safetensors(const std::string& path) {
  return read_safetensors(checkpoint::map_file("load_safetensors", path));
}

StateDict parse_safetensors(const at::Tensor& bytes) {
  return read_safetensors(checkpoint::file_in_memory("parse_safetensors", bytes));
}

void save_safetensors(const StateDict& state_dict, const std::string& path) {
  std::vector<size_t> order;
  const auto text = padded_header(layout(state_dict, order));
  if (text.size() > kMaxHeader) {
    checks::fail("save_safetensors", "state_dict", c10::str("a header of at most ", kMaxHeader, " bytes"),
                 c10::str(text.size(), " bytes"));
  }
  checkpoint::AtomicFile file("save_safetensors", path);
  const uint64_t length = text.size();
  file.write(&length, kLengthSize);
  file.write(text.data(), text.size());
  for (const auto index : order) {
    const auto tensor =
        state_dict.tensors[index].value().detach().cpu().contiguous().resolve_conj().resolve_neg();
    file.write(tensor.const_data_ptr(), tensor.nbytes());
  }
  file.commit();
}

}  // namespace attend
