#include <attend/checkpoint.h>

#include "checkpoint/flatten.h"
#include "checkpoint/pytorch_archive.h"
#include "checkpoint/tensor_unpickler.h"

namespace attend {
namespace {

StateDict read_pytorch(const checkpoint::Source& source) {
  constexpr uint64_t kMaxWorkPerByte = 4;
  const checkpoint::PytorchArchive archive(source);
  checkpoint::TensorUnpickler unpickler(source, archive);
  const auto value = unpickler.run();
  if (!std::holds_alternative<checkpoint::Dictionary*>(value)) {
    source.fail("a pickled dictionary of tensors", checkpoint::type_name(value));
  }
  return checkpoint::flatten(source, value, kMaxWorkPerByte * archive.pickle().size());
}

}  // namespace

StateDict load_pytorch(const std::string& path) {
  return read_pytorch(checkpoint::map_file("load_pytorch", path));
}

StateDict parse_pytorch(const at::Tensor& bytes) {
  return read_pytorch(checkpoint::file_in_memory("parse_pytorch", bytes));
}

}  // namespace attend
