#pragma once

#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "checkpoint/state_dict_unpickler.h"
#include "checkpoint/storage_source.h"

namespace attend::checkpoint {

/// Interprets a pickle with the functions that rebuild tensors and parameters (torch/_utils.py). The storages
/// must outlive this object.
class TensorUnpickler final : public StateDictUnpickler {
 public:
  TensorUnpickler(const Source& source, std::string_view pickle, const StorageSource& storages)
      : StateDictUnpickler(source, pickle), source_(storages) {}

 private:
  Value load_persistent(const Sequence& id) override;
  Value rebuild(const Global& function, const Sequence& arguments) override;

  Storage part_of(const Storage& storage, const Sequence& view) const;
  /// The position of a tensor in a storage.
  struct View {
    int64_t offset;
    std::vector<int64_t> sizes, strides;
  };
  View view_in(const at::Tensor& elements, const Sequence& arguments);
  Value rebuild_tensor(const Sequence& arguments, Global::Kind kind);
  Value rebuild_from_type(const Sequence& arguments);
  Value rebuild_quantized(const Sequence& arguments);
  Value rebuild_sparse(const Sequence& arguments);
  at::Tensor quantized_like(const Storage& storage, const View& view, const Sequence& parameters);
  at::Tensor component(const Sequence& data, size_t index);
  at::Tensor with_conj_and_neg(at::Tensor tensor, const Value& flags) const;
  at::Tensor with_dtype(const at::Tensor& bytes, const Global& dtype);
  at::Tensor converted_to(const at::Tensor& bytes, at::ScalarType dtype) const;
  std::vector<int64_t> sizes_of(const char* function, const Sequence& sequence) const;
  void charge_elements(const at::Tensor& tensor);

  const StorageSource& source_;
  std::unordered_map<std::string_view, Storage> storages_;
  /// The converted storages, by the memory of the storage and the dtype. `storages_` owns the memory.
  std::map<std::pair<const void*, at::ScalarType>, at::Tensor> converted_;
  uint64_t read_bytes_ = 0;  ///< the size of the elements that were read to check tensors
};

}  // namespace attend::checkpoint
