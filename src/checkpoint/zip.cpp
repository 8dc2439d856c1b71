#include "checkpoint/zip.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

// The structures of a zip file (PKWARE, APPNOTE.TXT, 4.3), each with the offsets of the fields that are read.

namespace attend::checkpoint {
namespace {

constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEnd = 0x06054b50,
                   kEnd64 = 0x06064b50, kEnd64Locator = 0x07064b50;
constexpr uint64_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56, kLocatorSize = 20;
constexpr uint32_t kIn64 = 0xffffffff;  // the field is in the zip64 structure instead
constexpr uint16_t kZip64Field = 1;

/// Reads little-endian numbers, each of which must lie inside the file.
class Reader {
 public:
  explicit Reader(const Source& source) : source_(source) {}

  void need(uint64_t offset, uint64_t size) const {
    if (offset > source_.size() || size > source_.size() - offset) {
      source_.fail("a zip file", c10::str("one that is damaged or cut short: ", size, " bytes at ", offset,
                                          " are beyond its end"));
    }
  }

  template <typename T>
  T number(uint64_t offset) const {
    need(offset, sizeof(T));
    T value = 0;
    std::memcpy(&value, source_.data() + offset, sizeof(T));
    return value;
  }

  std::string_view text(uint64_t offset, uint64_t size) const {
    need(offset, size);
    return {source_.data() + offset, size};
  }

  void expect(uint64_t offset, uint32_t signature) const {
    if (number<uint32_t>(offset) != signature)
      source_.fail("a zip file", c10::str("a damaged one: no header at ", offset));
  }

  const Source& source() const { return source_; }

 private:
  const Source& source_;
};

struct Directory {
  uint64_t offset, size, count;
};

/// The last structure of the file; a comment of up to 64 KB may follow it.
uint64_t find_end(const Reader& reader) {
  const uint64_t size = reader.source().size();
  for (uint64_t comment = 0; comment <= 0xffff && comment + kEndSize <= size; ++comment) {
    const uint64_t offset = size - kEndSize - comment;
    if (reader.number<uint32_t>(offset) == kEnd && reader.number<uint16_t>(offset + 20) == comment)
      return offset;
  }
  reader.source().fail("a zip file, as torch.save writes it since PyTorch 1.6", "another or a damaged one");
}

Directory find_directory(const Reader& reader) {
  const uint64_t end = find_end(reader);
  if (end >= kLocatorSize && reader.number<uint32_t>(end - kLocatorSize) == kEnd64Locator) {
    const auto end64 = reader.number<uint64_t>(end - kLocatorSize + 8);
    reader.need(end64, kEnd64Size);
    reader.expect(end64, kEnd64);
    return {reader.number<uint64_t>(end64 + 48), reader.number<uint64_t>(end64 + 40),
            reader.number<uint64_t>(end64 + 32)};
  }
  return {reader.number<uint32_t>(end + 16), reader.number<uint32_t>(end + 12),
          reader.number<uint16_t>(end + 10)};
}

/// Replaces the fields that are kIn64, in their order, by those of the zip64 extra field.
void read_zip64(const Reader& reader, uint64_t extra, uint64_t extra_size, std::vector<uint64_t*> fields) {
  std::erase_if(fields, [](const uint64_t* field) { return *field != kIn64; });
  if (fields.empty()) return;
  for (uint64_t at = 0; at + 4 <= extra_size;) {
    const auto kind = reader.number<uint16_t>(extra + at);
    const auto size = reader.number<uint16_t>(extra + at + 2);
    if (kind == kZip64Field && size >= 8 * fields.size() && at + 4 + size <= extra_size) {
      for (size_t n = 0; n < fields.size(); ++n) *fields[n] = reader.number<uint64_t>(extra + at + 4 + 8 * n);
      return;
    }
    at += 4 + uint64_t{size};
  }
  reader.source().fail("a zip file", "a damaged one: a size of 64 bits is missing");
}

struct NamedEntry {
  std::string_view name;
  ZipEntry entry;
};

/// Reads the entry of the directory at `offset`, and moves that to the next.
NamedEntry read_entry(const Reader& reader, uint64_t& offset) {
  reader.need(offset, kCentralSize);
  reader.expect(offset, kCentralHeader);
  const auto flags = reader.number<uint16_t>(offset + 8), method = reader.number<uint16_t>(offset + 10);
  uint64_t packed = reader.number<uint32_t>(offset + 20), size = reader.number<uint32_t>(offset + 24),
           local = reader.number<uint32_t>(offset + 42);
  const auto name_size = reader.number<uint16_t>(offset + 28),
             extra_size = reader.number<uint16_t>(offset + 30),
             comment_size = reader.number<uint16_t>(offset + 32);
  const auto name = reader.text(offset + kCentralSize, name_size);
  const uint64_t extra = offset + kCentralSize + name_size;
  reader.need(extra, extra_size);
  read_zip64(reader, extra, extra_size, {&size, &packed, &local});
  offset = extra + extra_size + comment_size;

  if ((flags & 1U) != 0 || method != 0 || packed != size) {
    if (name.find("/code/") != std::string_view::npos) {
      fail_as_of_cpp(reader.source());
    }
    reader.source().fail("files that are stored as they are",
                         "a compressed or encrypted one, " + shown(name));
  }
  reader.need(local, kLocalSize);
  reader.expect(local, kLocalHeader);
  const uint64_t start =
      local + kLocalSize + reader.number<uint16_t>(local + 26) + reader.number<uint16_t>(local + 28);
  reader.need(start, size);
  return {name, {start, size}};
}

void check_apart(const Source& source, std::vector<NamedEntry> entries) {
  std::sort(entries.begin(), entries.end(), [](const auto& left, const auto& right) {
    return std::pair(left.entry.offset, left.entry.size) < std::pair(right.entry.offset, right.entry.size);
  });
  for (size_t n = 1; n < entries.size(); ++n) {
    const auto& before = entries[n - 1].entry;
    if (before.offset + before.size > entries[n].entry.offset) {
      source.fail("files that do not overlap",
                  shown(entries[n - 1].name) + " over " + shown(entries[n].name));
    }
  }
}

}  // namespace

void fail_as_of_cpp(const Source& source) {
  source.fail("an archive that Python's torch.save wrote",
              "one that C++'s torch::save wrote: read it with torch::load");
}

std::unordered_map<std::string, ZipEntry> read_zip(const Source& source) {
  const Reader reader(source);
  const auto directory = find_directory(reader);
  reader.need(directory.offset, directory.size);
  if (directory.count > directory.size / kCentralSize) {
    source.fail("a zip file", c10::str("a damaged one: ", directory.count, " files in a directory of ",
                                       directory.size, " bytes"));
  }
  std::vector<NamedEntry> entries;
  uint64_t offset = directory.offset;
  for (uint64_t n = 0; n < directory.count; ++n) entries.push_back(read_entry(reader, offset));
  check_apart(source, entries);
  std::unordered_map<std::string, ZipEntry> files;
  for (const auto& [name, entry] : entries) {
    if (!files.emplace(name, entry).second) source.fail("each file once", shown(name) + " twice");
  }
  return files;
}

}  // namespace attend::checkpoint
