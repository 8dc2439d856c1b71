#pragma once

#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "checkpoint/pickle.h"
#include "checkpoint/pytorch_archive.h"

namespace attend::checkpoint {

/// Interprets the pickle of an archive, with the globals that tensors and parameters are pickled with
/// (torch/_utils.py). The archive must outlive it.
class TensorUnpickler final : public Unpickler {
 public:
  TensorUnpickler(const Source& source, const PytorchArchive& archive)
      : Unpickler(source, archive.pickle()), archive_(archive) {}

 private:
  Global find_global(std::string_view module, std::string_view name) override;
  Value load_persistent(const Sequence& id) override;
  Value call(const Global& function, const Sequence& arguments) override;

  template <typename T>
  T argument(const char* function, const Sequence& arguments, size_t index) const;
  Value rebuild_tensor(const Sequence& arguments, bool has_dtype);
  at::Tensor with_conj_and_neg(at::Tensor tensor, const Value& flags) const;
  at::Tensor with_dtype(const at::Tensor& bytes, const Global& dtype);
  at::Tensor converted_to(const at::Tensor& bytes, at::ScalarType dtype) const;
  std::vector<int64_t> sizes_of(const Sequence& sequence) const;
  void charge(uint64_t dimensions);

  const PytorchArchive& archive_;
  std::unordered_map<std::string_view, Storage> storages_;
  /// By the memory of a storage and the dtype. `storages_` owns the memory.
  std::map<std::pair<const void*, at::ScalarType>, at::Tensor> converted_;
  uint64_t work_ = 0;
};

}  // namespace attend::checkpoint
