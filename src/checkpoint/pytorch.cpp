#include <attend/checkpoint.h>

#include "checkpoint/flatten.h"
#include "checkpoint/legacy_file.h"
#include "checkpoint/pytorch_archive.h"
#include "checkpoint/tensor_unpickler.h"

namespace attend {
namespace {

StateDict tensors_of(const checkpoint::Source& source, std::string_view pickle,
                     const checkpoint::StorageSource& storages) {
  checkpoint::TensorUnpickler unpickler(source, pickle, storages);
  const auto value = unpickler.run();
  if (!std::holds_alternative<checkpoint::Dictionary*>(value)) {
    source.fail("a pickled dictionary of tensors", checkpoint::type_name(value));
  }
  return checkpoint::flatten(source, value);
}

StateDict read_pytorch(const checkpoint::Source& source) {
  if (checkpoint::LegacyFile::begins_like_one(source)) {
    const checkpoint::LegacyFile file(source);
    return tensors_of(source, file.pickle(), file);
  }
  const checkpoint::PytorchArchive archive(source);
  return tensors_of(source, archive.pickle(), archive);
}

}  // namespace

StateDict load_pytorch(const std::string& path) {
  return read_pytorch(checkpoint::map_file("load_pytorch", path));
}

StateDict parse_pytorch(const at::Tensor& bytes) {
  return read_pytorch(checkpoint::file_in_memory("parse_pytorch", bytes));
}

}  // namespace attend
