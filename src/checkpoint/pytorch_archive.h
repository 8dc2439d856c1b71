#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "checkpoint/mapped_file.h"
#include "checkpoint/storage_source.h"
#include "checkpoint/zip.h"

namespace attend::checkpoint {

/// The archive that Python's torch.save writes. A folder of any name contains the pickle data.pkl, the file
/// byteorder, and the storages data/KEY.
class PytorchArchive final : public StorageSource {
 public:
  /// Fails unless the source is such an archive. The source must outlive this object.
  explicit PytorchArchive(const Source& source);

  std::string_view pickle() const { return pickle_; }

  at::Tensor storage(std::string_view key, uint64_t count, at::ScalarType dtype) const override;

 private:
  std::optional<ZipEntry> find(const std::string& name) const;
  std::string_view contents(const ZipEntry& entry) const {
    return {source_.data() + entry.offset, entry.size};
  }

  const Source& source_;
  std::unordered_map<std::string, ZipEntry> files_;
  std::string folder_;  ///< the name of the folder, with a slash at its end
  std::string_view pickle_;
};

}  // namespace attend::checkpoint
