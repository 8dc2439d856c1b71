#include "checkpoint/pytorch_archive.h"

#include <c10/util/StringUtil.h>

namespace attend::checkpoint {

PytorchArchive::PytorchArchive(const Source& source) : source_(source), files_(read_zip(source)) {
  constexpr std::string_view kPickle = "/data.pkl";
  for (const auto& [name, entry] : files_) {
    if (name.ends_with(kPickle) && name.find('/') == name.size() - kPickle.size()) {
      folder_ = name.substr(0, name.size() - kPickle.size() + 1);
      pickle_ = contents(entry);
    }
  }
  if (folder_.empty()) source.fail("an archive of torch.save, with a file data.pkl", "another zip archive");
  const auto byte_order = find("byteorder");
  if (byte_order && contents(*byte_order) != "little") {
    source.fail("little-endian storages", "the byte order " + printable(contents(*byte_order)));
  }
}

at::Tensor PytorchArchive::storage(std::string_view key, uint64_t count, at::ScalarType dtype) const {
  const auto entry = find("data/" + std::string(key));
  if (!entry) source_.fail("the storage " + printable(key) + " in the archive", "none");
  if (entry->size / c10::elementSize(dtype) != count || entry->size % c10::elementSize(dtype) != 0) {
    source_.fail(c10::str("a storage ", printable(key), " of ", count, " elements of ",
                          c10::elementSize(dtype), " bytes"),
                 c10::str(entry->size, " bytes"));
  }
  return tensor_at(source_, entry->offset, count, dtype);
}

std::optional<ZipEntry> PytorchArchive::find(const std::string& name) const {
  const auto found = files_.find(folder_ + name);
  return found == files_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace attend::checkpoint
