#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "checkpoint/mapped_file.h"
#include "checkpoint/storage_source.h"

namespace attend::checkpoint {

/// A file that torch.save wrote before PyTorch 1.6: the pickles of a magic number, a version, the properties
/// of the machine, the object, and the keys of its storages; then, for each storage, the number of elements
/// (8 bytes, little-endian) and the data.
class LegacyFile final : public StorageSource {
 public:
  /// Whether a file begins with a pickle.
  static bool begins_like_one(const Source& source);

  /// Fails unless the source is such a file. The source must outlive this object.
  explicit LegacyFile(const Source& source);

  /// Returns the pickle of the object.
  std::string_view pickle() const { return pickle_; }
  at::Tensor storage(std::string_view key, uint64_t count, at::ScalarType dtype) const override;

 private:
  struct Position {
    uint64_t offset, count;  ///< the offset of the data in bytes, and the number of elements
  };

  void check_header(std::string_view& rest) const;

  const Source& source_;
  std::string_view pickle_;
  std::unordered_map<std::string, Position> storages_;
};

}  // namespace attend::checkpoint
