#include "checkpoint/zip.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

// A reader of zip archives without compression (PKWARE, APPNOTE.TXT, section 4.3). Literal offsets in this
// file are offsets of fields within their record.

namespace attend::checkpoint {
namespace {

// The signatures of the records, and their sizes without names, extra fields and comments.
constexpr uint32_t kLocalHeader = 0x04034b50, kCentralHeader = 0x02014b50, kEndRecord = 0x06054b50,
                   kEndRecord64 = 0x06064b50, kEndLocator64 = 0x07064b50;
constexpr uint64_t kLocalHeaderSize = 30, kCentralHeaderSize = 46, kEndRecordSize = 22, kEndRecord64Size = 56,
                   kEndLocator64Size = 20;
constexpr uint32_t kStoredInZip64 = 0xffffffff;  // marks a value that is in the zip64 extra field
constexpr uint16_t kZip64ExtraField = 1;

/// Reads fields of the archive. Fails if a field lies beyond the end of the file.
class ZipReader {
 public:
  explicit ZipReader(const Source& source) : source_(source) {}

  void require(uint64_t offset, uint64_t size) const {
    if (offset > source_.size() || size > source_.size() - offset) {
      source_.fail("a zip archive", c10::str("a truncated or damaged one: ", size, " bytes at offset ",
                                             offset, " exceed its size"));
    }
  }

  template <typename T>
  T integer(uint64_t offset) const {
    require(offset, sizeof(T));
    T value = 0;
    std::memcpy(&value, source_.data() + offset, sizeof(T));
    return value;
  }

  std::string_view text(uint64_t offset, uint64_t size) const {
    require(offset, size);
    return {source_.data() + offset, size};
  }

  void require_signature(uint64_t offset, uint32_t signature) const {
    if (integer<uint32_t>(offset) != signature)
      source_.fail("a zip archive", c10::str("a damaged one: no valid record at offset ", offset));
  }

  const Source& source() const { return source_; }

 private:
  const Source& source_;
};

/// The central directory: its position in bytes, and its number of entries.
struct CentralDirectory {
  uint64_t offset, size, count;
};

/// Returns the offset of the end record, which may be followed only by a comment of up to 64 KB.
uint64_t find_end_record(const ZipReader& reader) {
  const uint64_t size = reader.source().size();
  for (uint64_t comment = 0; comment <= 0xffff && comment + kEndRecordSize <= size; ++comment) {
    const uint64_t offset = size - kEndRecordSize - comment;
    if (reader.integer<uint32_t>(offset) == kEndRecord && reader.integer<uint16_t>(offset + 20) == comment)
      return offset;
  }
  constexpr uint64_t kTarMagic = 257;
  if (size > kTarMagic + 5 && reader.text(kTarMagic, 5) == "ustar") {
    reader.source().fail("a zip archive or the pickles of torch.save", "a tar archive, as PyTorch 0.1 wrote");
  }
  reader.source().fail("a zip archive, which torch.save writes since PyTorch 1.6, or the pickles from before",
                       "neither");
}

CentralDirectory find_directory(const ZipReader& reader) {
  const uint64_t end = find_end_record(reader);
  if (end >= kEndLocator64Size && reader.integer<uint32_t>(end - kEndLocator64Size) == kEndLocator64) {
    const auto end64 = reader.integer<uint64_t>(end - kEndLocator64Size + 8);
    reader.require(end64, kEndRecord64Size);
    reader.require_signature(end64, kEndRecord64);
    return {reader.integer<uint64_t>(end64 + 48), reader.integer<uint64_t>(end64 + 40),
            reader.integer<uint64_t>(end64 + 32)};
  }
  return {reader.integer<uint32_t>(end + 16), reader.integer<uint32_t>(end + 12),
          reader.integer<uint16_t>(end + 10)};
}

/// Replaces the fields with the value `kStoredInZip64`, in order, by the values of the zip64 extra field.
void read_zip64(const ZipReader& reader, uint64_t extra, uint64_t extra_size, std::vector<uint64_t*> fields) {
  std::erase_if(fields, [](const uint64_t* field) { return *field != kStoredInZip64; });
  if (fields.empty()) return;
  for (uint64_t at = 0; at + 4 <= extra_size;) {
    const auto kind = reader.integer<uint16_t>(extra + at);
    const auto size = reader.integer<uint16_t>(extra + at + 2);
    if (kind == kZip64ExtraField && size >= 8 * fields.size() && at + 4 + size <= extra_size) {
      for (size_t n = 0; n < fields.size(); ++n)
        *fields[n] = reader.integer<uint64_t>(extra + at + 4 + 8 * n);
      return;
    }
    at += 4 + uint64_t{size};
  }
  reader.source().fail("a zip archive", "a damaged one: an entry without its zip64 extra field");
}

struct NamedZipEntry {
  std::string_view name;
  ZipEntry entry;
};

/// Reads the directory entry at `offset`, and advances `offset` to the next entry.
NamedZipEntry read_entry(const ZipReader& reader, uint64_t& offset) {
  reader.require(offset, kCentralHeaderSize);
  reader.require_signature(offset, kCentralHeader);
  const auto flags = reader.integer<uint16_t>(offset + 8), method = reader.integer<uint16_t>(offset + 10);
  uint64_t packed = reader.integer<uint32_t>(offset + 20), size = reader.integer<uint32_t>(offset + 24),
           local = reader.integer<uint32_t>(offset + 42);
  const auto name_size = reader.integer<uint16_t>(offset + 28),
             extra_size = reader.integer<uint16_t>(offset + 30),
             comment_size = reader.integer<uint16_t>(offset + 32);
  const auto name = reader.text(offset + kCentralHeaderSize, name_size);
  const uint64_t extra = offset + kCentralHeaderSize + name_size;
  reader.require(extra, extra_size);
  read_zip64(reader, extra, extra_size, {&size, &packed, &local});
  offset = extra + extra_size + comment_size;

  if ((flags & 1U) != 0 || method != 0 || packed != size) {
    if (name.find("/code/") != std::string_view::npos) {
      fail_as_torchscript(reader.source());
    }
    reader.source().fail("members without compression and encryption",
                         "a compressed or encrypted one, " + printable(name));
  }
  reader.require(local, kLocalHeaderSize);
  reader.require_signature(local, kLocalHeader);
  const uint64_t start =
      local + kLocalHeaderSize + reader.integer<uint16_t>(local + 26) + reader.integer<uint16_t>(local + 28);
  reader.require(start, size);
  return {name, {start, size}};
}

void check_no_overlap(const Source& source, std::vector<NamedZipEntry> entries) {
  std::sort(entries.begin(), entries.end(), [](const auto& left, const auto& right) {
    return std::pair(left.entry.offset, left.entry.size) < std::pair(right.entry.offset, right.entry.size);
  });
  for (size_t n = 1; n < entries.size(); ++n) {
    const auto& before = entries[n - 1].entry;
    if (before.offset + before.size > entries[n].entry.offset) {
      source.fail("members that do not overlap",
                  printable(entries[n - 1].name) + " over " + printable(entries[n].name));
    }
  }
}

}  // namespace

void fail_as_torchscript(const Source& source) {
  source.fail("an archive that Python's torch.save wrote",
              "one that C++'s torch::save or torch.jit.save wrote; read it with torch::load");
}

std::unordered_map<std::string, ZipEntry> read_zip(const Source& source) {
  const ZipReader reader(source);
  const auto directory = find_directory(reader);
  reader.require(directory.offset, directory.size);
  if (directory.count > directory.size / kCentralHeaderSize) {
    source.fail("a zip archive", c10::str("a damaged one: ", directory.count, " entries in a directory of ",
                                          directory.size, " bytes"));
  }
  std::vector<NamedZipEntry> entries;
  uint64_t offset = directory.offset;
  for (uint64_t n = 0; n < directory.count; ++n) entries.push_back(read_entry(reader, offset));
  check_no_overlap(source, entries);
  std::unordered_map<std::string, ZipEntry> files;
  for (const auto& [name, entry] : entries) {
    if (!files.emplace(name, entry).second)
      source.fail("unique member names", "a duplicate " + printable(name));
  }
  return files;
}

}  // namespace attend::checkpoint
