#include "checkpoint/tensor_unpickler.h"

#include <ATen/TensorOperators.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>

#include "checkpoint/dtype_names.h"

namespace attend::checkpoint {
namespace {

constexpr auto kStorage = "a storage's persistent id";
constexpr auto kTensor = "_rebuild_tensor";
constexpr auto kParameter = "_rebuild_parameter";

struct NamedGlobal {
  std::string_view module, name;
  Global::Kind kind;
};

constexpr std::array<NamedGlobal, 6> kGlobals = {{
    {"collections", "OrderedDict", Global::Kind::ordered_dict},
    {"torch._utils", "_rebuild_tensor_v2", Global::Kind::tensor_v2},
    {"torch._utils", "_rebuild_tensor_v3", Global::Kind::tensor_v3},
    {"torch._utils", "_rebuild_parameter", Global::Kind::parameter},
    {"torch._utils", "_rebuild_parameter_with_state", Global::Kind::parameter_with_state},
    {"torch.storage", "UntypedStorage", Global::Kind::untyped_storage},
}};

/// Whether every element of a strided tensor lies in a storage of `storage_size` elements, and the number of
/// elements fits 64 bits.
bool fits_storage(int64_t storage_size, int64_t offset, const std::vector<int64_t>& sizes,
                  const std::vector<int64_t>& strides) {
  int64_t last = offset, count = 1;
  bool is_empty = false;
  for (size_t n = 0; n < sizes.size(); ++n) {
    int64_t reach = 0;
    is_empty |= sizes[n] == 0;
    if (__builtin_mul_overflow(std::max<int64_t>(sizes[n], 1) - 1, strides[n], &reach) ||
        __builtin_add_overflow(last, reach, &last) ||
        __builtin_mul_overflow(count, std::max<int64_t>(sizes[n], 1), &count)) {
      return false;
    }
  }
  return is_empty ? offset <= storage_size : last < storage_size;
}

std::string wrong_arguments(const char* function) { return std::string("wrong arguments of ") + function; }

}  // namespace

Global TensorUnpickler::find_global(std::string_view module, std::string_view name) {
  for (const auto& known : kGlobals) {
    if (known.module == module && known.name == name) return {known.kind};
  }
  if (module == "torch") {
    if (const auto dtype = dtype_named(&DtypeNames::storage, name))
      return {Global::Kind::typed_storage, *dtype};
    if (const auto dtype = dtype_named(&DtypeNames::python, name)) return {Global::Kind::dtype, *dtype};
  }
  if (module.starts_with("__torch__")) fail_as_torchscript(source());
  source().fail("tensors only, as in torch.save(model.state_dict(), path)",
                "a pickle that refers to " + printable(std::string(module) + "." + std::string(name)));
}

template <typename T>
T TensorUnpickler::argument(const char* function, const Sequence& arguments, size_t index) const {
  const auto* const found =
      index < arguments.items.size() ? std::get_if<T>(&arguments.items[index]) : nullptr;
  if (found == nullptr) fail(wrong_arguments(function));
  return *found;
}

/// Loads a storage, from the id ("storage", class, key, device, number of elements).
Value TensorUnpickler::load_persistent(const Sequence& id) {
  const auto type = argument<Global>(kStorage, id, 1);
  const auto key = argument<std::string_view>(kStorage, id, 2);
  const auto count = argument<int64_t>(kStorage, id, 4);
  const bool is_typed = type.kind == Global::Kind::typed_storage;
  if (argument<std::string_view>(kStorage, id, 0) != "storage" || count < 0 ||
      (!is_typed && type.kind != Global::Kind::untyped_storage)) {
    fail(wrong_arguments(kStorage));
  }
  auto& storage = storages_[key];
  if (!storage.elements.defined()) {
    storage = {archive_.storage(key, static_cast<uint64_t>(count), type.dtype), is_typed};
  }
  if (storage.elements.scalar_type() != type.dtype || storage.elements.numel() != count ||
      storage.is_typed != is_typed) {
    fail("two types or sizes of the storage " + printable(key));
  }
  return storage;
}

Value TensorUnpickler::call(const Global& function, const Sequence& arguments) {
  switch (function.kind) {
    case Global::Kind::ordered_dict:
      if (!arguments.items.empty()) fail(wrong_arguments("OrderedDict"));
      return new_dictionary();
    case Global::Kind::tensor_v2:
    case Global::Kind::tensor_v3:
      return rebuild_tensor(arguments, function.kind == Global::Kind::tensor_v3);
    case Global::Kind::parameter:
    case Global::Kind::parameter_with_state:
      return argument<at::Tensor>(kParameter, arguments, 0);
    default:
      fail("REDUCE of a non-callable");
  }
}

/// The arguments are (storage, offset, size, stride, requires_grad, hooks, metadata) in version 2. Version 3,
/// for untyped storages, has the dtype before the metadata.
Value TensorUnpickler::rebuild_tensor(const Sequence& arguments, bool has_dtype) {
  const auto storage = argument<Storage>(kTensor, arguments, 0);
  auto elements = storage.elements;
  if (has_dtype == storage.is_typed) fail(wrong_arguments(kTensor));
  if (has_dtype) elements = with_dtype(storage.elements, argument<Global>(kTensor, arguments, 6));
  const auto offset = argument<int64_t>(kTensor, arguments, 1);
  const auto sizes = sizes_of(*argument<Sequence*>(kTensor, arguments, 2)),
             strides = sizes_of(*argument<Sequence*>(kTensor, arguments, 3));
  charge(sizes.size());
  if (offset < 0 || sizes.size() != strides.size() ||
      !fits_storage(elements.numel(), offset, sizes, strides)) {
    fail(c10::str("a tensor of shape ", sizes, ", strides ", strides, " and offset ", offset,
                  " in a storage of ", elements.numel(), " elements"));
  }
  auto tensor = elements.as_strided(sizes, strides, offset);
  const size_t metadata = has_dtype ? 7 : 6;
  return metadata < arguments.items.size() ? with_conj_and_neg(tensor, arguments.items[metadata]) : tensor;
}

/// Sets the conjugate and negative bits that the metadata of a tensor names: None, or a dict of bools.
at::Tensor TensorUnpickler::with_conj_and_neg(at::Tensor tensor, const Value& metadata) const {
  if (std::holds_alternative<std::monostate>(metadata)) return tensor;
  const auto* const flags = std::get_if<Dictionary*>(&metadata);
  if (flags == nullptr) fail(wrong_arguments(kTensor));
  for (const auto& [key, value] : (*flags)->items) {
    const auto* const name = std::get_if<std::string_view>(&key);
    const auto* const is_set = std::get_if<bool>(&value);
    if (name == nullptr || is_set == nullptr || (*name != "conj" && *name != "neg")) {
      fail(wrong_arguments(kTensor));
    }
    if (*is_set) tensor = *name == "conj" ? tensor._conj() : tensor._neg_view();
  }
  return tensor;
}

/// An untyped storage with a dtype. A storage is converted once, so that its tensors share memory.
at::Tensor TensorUnpickler::with_dtype(const at::Tensor& bytes, const Global& dtype) {
  if (dtype.kind != Global::Kind::dtype) fail(wrong_arguments(kTensor));
  auto& converted = converted_[{bytes.const_data_ptr(), dtype.dtype}];
  if (!converted.defined()) converted = converted_to(bytes, dtype.dtype);
  return converted;
}

at::Tensor TensorUnpickler::converted_to(const at::Tensor& bytes, at::ScalarType dtype) const {
  const auto size = static_cast<int64_t>(c10::elementSize(dtype));
  const auto address = reinterpret_cast<uintptr_t>(bytes.const_data_ptr());
  if (bytes.numel() % size != 0) fail("a storage that ends within an element");
  if (dtype == at::kBool) return bytes.ne(0);
  return (address % static_cast<uintptr_t>(size) == 0 ? bytes : bytes.clone()).view(dtype);
}

std::vector<int64_t> TensorUnpickler::sizes_of(const Sequence& sequence) const {
  constexpr size_t kMaxDimensions = 64;  // the limit of ATen's operations
  if (sequence.items.size() > kMaxDimensions) fail("a tensor of more than 64 dimensions");
  std::vector<int64_t> sizes;
  for (size_t n = 0; n < sequence.items.size(); ++n) {
    sizes.push_back(argument<int64_t>(kTensor, sequence, n));
    if (sizes.back() < 0) fail("a negative size or stride");
  }
  return sizes;
}

/// Limits the memory for tensors: with the memo, a short pickle could rebuild a tensor any number of times
/// from the same arguments. A pickle that spells out the arguments of each tensor stays below the limit.
void TensorUnpickler::charge(uint64_t dimensions) {
  constexpr uint64_t kMinBytes = 16;
  work_ += kMinBytes + dimensions;
  if (work_ > archive_.pickle().size()) fail("more tensors than a pickle of its size can describe");
}

}  // namespace attend::checkpoint
