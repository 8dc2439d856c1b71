#include "checkpoint/tensor_unpickler.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_empty_affine_quantized.h>
#include <ATen/ops/_empty_per_channel_affine_quantized.h>
#include <ATen/ops/_sparse_compressed_tensor_unsafe.h>
#include <ATen/ops/_sparse_coo_tensor_unsafe.h>
#include <ATen/ops/_validate_sparse_compressed_tensor_args.h>
#include <ATen/ops/_validate_sparse_coo_tensor_args.h>
#include <attend/error.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <optional>

#include "checkpoint/dtype_names.h"

namespace attend::checkpoint {
namespace {

using Kind = Global::Kind;

constexpr auto kStorage = "a storage's persistent id";
constexpr auto kTensor = "_rebuild_tensor";
constexpr auto kQuantized = "_rebuild_qtensor";
constexpr auto kSparse = "_rebuild_sparse_tensor";
constexpr uint64_t kMinBytes = 16;  // the size of the pickle of a tensor, without its dimensions

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

/// Returns the dtype in which the elements of a storage are read: integers for a quantized dtype.
at::ScalarType read_as(at::ScalarType dtype) { return c10::toUnderlying(dtype); }

bool fits_64_bits(const std::vector<int64_t>& sizes) {
  int64_t count = 1;
  return std::ranges::none_of(
      sizes, [&](int64_t size) { return __builtin_mul_overflow(count, std::max<int64_t>(size, 1), &count); });
}

}  // namespace

/// Loads a storage, given its id ("storage", class, key, device, number of elements). In files from before
/// PyTorch 1.6 the id also has None, or a part of the storage (key, first element, number of elements).
Value TensorUnpickler::load_persistent(const Sequence& id) {
  const auto type = argument<Global>(kStorage, id, 1);
  const auto key = argument<std::string_view>(kStorage, id, 2);
  const auto count = argument<int64_t>(kStorage, id, 4);
  const bool is_typed = type.kind == Kind::typed_storage;
  if (argument<std::string_view>(kStorage, id, 0) != "storage" || count < 0 ||
      (!is_typed && type.kind != Kind::untyped_storage)) {
    fail_arguments(kStorage);
  }
  auto& storage = storages_[key];
  if (!storage.elements.defined()) {
    storage = {source_.storage(key, static_cast<uint64_t>(count), read_as(type.dtype)), type.dtype, is_typed};
  }
  if (storage.dtype != type.dtype || storage.elements.numel() != count || storage.is_typed != is_typed) {
    fail("two types or sizes of the storage " + printable(key));
  }
  const bool is_whole = id.items.size() < 6 || std::holds_alternative<std::monostate>(id.items[5]);
  return is_whole ? storage : part_of(storage, *argument<Sequence*>(kStorage, id, 5));
}

Storage TensorUnpickler::part_of(const Storage& storage, const Sequence& view) const {
  const auto offset = argument<int64_t>(kStorage, view, 1), count = argument<int64_t>(kStorage, view, 2);
  const auto size = storage.elements.numel();
  if (offset < 0 || count < 0 || offset > size || count > size - offset) {
    fail(c10::str("elements ", offset, " ... of a storage of ", size));
  }
  return {storage.elements.slice(0, offset, offset + count), storage.dtype, storage.is_typed};
}

Value TensorUnpickler::rebuild(const Global& function, const Sequence& arguments) {
  switch (function.kind) {
    case Kind::tensor_v1:
    case Kind::tensor_v2:
    case Kind::tensor_v3:
      return rebuild_tensor(arguments, function.kind);
    case Kind::parameter:
      return argument<at::Tensor>("_rebuild_parameter", arguments, 0);
    case Kind::tensor_with_attributes:
      return rebuild_from_type(arguments);
    case Kind::quantized_tensor:
      return rebuild_quantized(arguments);
    case Kind::sparse_tensor:
      return rebuild_sparse(arguments);
    default: {  // (tensor, dtype, device, requires_grad), for a tensor that was copied to the CPU to be saved
      auto tensor = argument<at::Tensor>(function.name, arguments, 0);
      if (argument<Global>(function.name, arguments, 1).dtype != tensor.scalar_type()) {
        fail_arguments(function.name);
      }
      return tensor;
    }
  }
}

/// Rebuilds a tensor subclass; the arguments are (function, type, arguments, attributes). The attributes of a
/// tensor are ignored.
Value TensorUnpickler::rebuild_from_type(const Sequence& arguments) {
  constexpr auto kFromType = "_rebuild_from_type_v2";
  const auto function = argument<Global>(kFromType, arguments, 0);
  const auto type = argument<Global>(kFromType, arguments, 1);
  const bool rebuilds = function.kind >= Kind::tensor_v1 && function.kind <= Kind::copied_tensor &&
                        function.kind != Kind::tensor_with_attributes;
  if (!rebuilds || type.kind != Kind::tensor_type) fail_arguments(kFromType);
  return rebuild(function, *argument<Sequence*>(kFromType, arguments, 2));
}

/// Returns the position that arguments 1 to 3 describe: offset, sizes, strides. Fails unless the tensor lies
/// in the storage.
TensorUnpickler::View TensorUnpickler::view_in(const at::Tensor& elements, const Sequence& arguments) {
  View view{argument<int64_t>(kTensor, arguments, 1),
            sizes_of(kTensor, *argument<Sequence*>(kTensor, arguments, 2)),
            sizes_of(kTensor, *argument<Sequence*>(kTensor, arguments, 3))};
  charge(kMinBytes + view.sizes.size());
  const auto& [offset, sizes, strides] = view;
  if (offset < 0 || sizes.size() != strides.size() ||
      !fits_storage(elements.numel(), offset, sizes, strides)) {
    fail(c10::str("a tensor of shape ", sizes, ", strides ", strides, " and offset ", offset,
                  " in a storage of ", elements.numel(), " elements"));
  }
  return view;
}

/// Rebuilds a dense tensor. The arguments are (storage, offset, size, stride) in version 1, followed by
/// requires_grad, hooks and metadata in version 2. Version 3, for untyped storages, has the dtype before the
/// metadata.
Value TensorUnpickler::rebuild_tensor(const Sequence& arguments, Kind kind) {
  const bool has_dtype = kind == Kind::tensor_v3;
  const auto storage = argument<Storage>(kTensor, arguments, 0);
  if (has_dtype == storage.is_typed || c10::isQIntType(storage.dtype)) fail_arguments(kTensor);
  const auto elements =
      has_dtype ? with_dtype(storage.elements, argument<Global>(kTensor, arguments, 6)) : storage.elements;
  const auto [offset, sizes, strides] = view_in(elements, arguments);
  const auto tensor = elements.as_strided(sizes, strides, elements.storage_offset() + offset);
  const size_t metadata = has_dtype ? 7 : 6;
  return metadata < arguments.items.size() ? with_conj_and_neg(tensor, arguments.items[metadata]) : tensor;
}

/// Rebuilds a quantized tensor; the arguments are (storage, offset, size, stride, quantizer, requires_grad,
/// hooks).
Value TensorUnpickler::rebuild_quantized(const Sequence& arguments) {
  const auto storage = argument<Storage>(kQuantized, arguments, 0);
  if (!storage.is_typed || !c10::isQIntType(storage.dtype)) fail_arguments(kQuantized);
  const auto view = view_in(storage.elements, arguments);
  try {
    auto tensor = quantized_like(storage, view, *argument<Sequence*>(kQuantized, arguments, 4));
    tensor.set_(storage.elements.storage(), storage.elements.storage_offset() + view.offset, view.sizes,
                view.strides);
    return tensor;
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {  // of ATen
    fail(c10::str("a quantized tensor that is not valid (", error.what_without_backtrace(), ")"));
  }
}

/// Returns a tensor with the dtype of the storage and the given quantizer, (scheme, scale, zero point) or
/// (scheme, scales, zero points, axis), whose elements are not set.
at::Tensor TensorUnpickler::quantized_like(const Storage& storage, const View& view,
                                           const Sequence& parameters) {
  const auto scheme = argument<Global>(kQuantized, parameters, 0).kind;
  const auto options = at::TensorOptions(storage.dtype);
  if (scheme == Kind::quantization_per_tensor) {
    return at::_empty_affine_quantized({0}, options, argument<double>(kQuantized, parameters, 1),
                                       argument<int64_t>(kQuantized, parameters, 2));
  }
  const auto scales = component(parameters, 1), zero_points = component(parameters, 2);
  const auto axis = argument<int64_t>(kQuantized, parameters, 3);
  if (scheme != Kind::quantization_per_channel || axis < 0 ||
      axis >= static_cast<int64_t>(view.sizes.size()) || scales.dim() != 1 ||
      zero_points.sizes() != scales.sizes() || scales.numel() != view.sizes[static_cast<size_t>(axis)]) {
    fail_arguments(kQuantized);
  }
  std::vector<int64_t> sizes(view.sizes.size(), 0);
  sizes[static_cast<size_t>(axis)] = scales.numel();
  return at::_empty_per_channel_affine_quantized(sizes, scales, zero_points, axis, options);
}

/// Rebuilds a sparse tensor; the arguments are (layout, data). The data are (indices, values, size,
/// is_coalesced) for sparse_coo, and (compressed indices, plain indices, values, size) for the other layouts.
Value TensorUnpickler::rebuild_sparse(const Sequence& arguments) {
  const auto layout = argument<at::Layout>(kSparse, arguments, 0);
  const auto& data = *argument<Sequence*>(kSparse, arguments, 1);
  const size_t compressed = layout == at::kSparse ? 0 : 1;
  const auto sizes = sizes_of(kSparse, *argument<Sequence*>(kSparse, data, compressed + 2));
  if (layout == at::kStrided || !fits_64_bits(sizes)) fail_arguments(kSparse);
  charge(kMinBytes + sizes.size());
  const auto indices = component(data, 0), values = component(data, compressed + 1);
  const auto options = values.options().layout(layout);
  try {  // indices out of range would be read and written out of bounds later
    if (compressed == 1) {
      const auto plain = component(data, 1);
      at::_validate_sparse_compressed_tensor_args(indices, plain, values, sizes, layout);
      return at::_sparse_compressed_tensor_unsafe(indices, plain, values, sizes, options);
    }
    std::optional<bool> is_coalesced;
    if (data.items.size() > 3) {
      if (const auto* const flag = std::get_if<bool>(&data.items[3])) is_coalesced = *flag;
    }
    at::_validate_sparse_coo_tensor_args(indices, values, sizes, is_coalesced);
    return at::_sparse_coo_tensor_unsafe(indices, values, sizes, options, is_coalesced);
  } catch (const Error&) {
    throw;
  } catch (const c10::Error& error) {  // of ATen
    fail(c10::str("a sparse tensor that is not valid (", error.what_without_backtrace(), ")"));
  }
}

/// Returns a tensor of which a sparse tensor consists, and counts its elements as read.
at::Tensor TensorUnpickler::component(const Sequence& data, size_t index) {
  auto tensor = argument<at::Tensor>(kSparse, data, index);
  if (tensor.layout() != at::kStrided || tensor.is_quantized()) fail_arguments(kSparse);
  charge_elements(tensor);
  return tensor;
}

/// Sets the conjugate and negative bits that the metadata of a tensor, None or a dict of bools, request.
at::Tensor TensorUnpickler::with_conj_and_neg(at::Tensor tensor, const Value& metadata) const {
  if (std::holds_alternative<std::monostate>(metadata)) return tensor;
  const auto* const flags = std::get_if<Dictionary*>(&metadata);
  if (flags == nullptr) fail_arguments(kTensor);
  for (const auto& [key, value] : (*flags)->items) {
    const auto* const name = std::get_if<std::string_view>(&key);
    const auto* const is_set = std::get_if<bool>(&value);
    if (name == nullptr || is_set == nullptr || (*name != "conj" && *name != "neg")) {
      fail_arguments(kTensor);
    }
    if (*is_set) tensor = *name == "conj" ? tensor._conj() : tensor._neg_view();
  }
  return tensor;
}

/// Returns an untyped storage as a tensor of the dtype. A storage is converted only once, so that its tensors
/// share memory.
at::Tensor TensorUnpickler::with_dtype(const at::Tensor& bytes, const Global& dtype) {
  if (dtype.kind != Global::Kind::dtype) fail_arguments(kTensor);
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

std::vector<int64_t> TensorUnpickler::sizes_of(const char* function, const Sequence& sequence) const {
  constexpr size_t kMaxDimensions = 64;  // the limit of ATen's operations
  if (sequence.items.size() > kMaxDimensions) fail("a tensor of more than 64 dimensions");
  std::vector<int64_t> sizes;
  for (size_t n = 0; n < sequence.items.size(); ++n) {
    sizes.push_back(argument<int64_t>(function, sequence, n));
    if (sizes.back() < 0) fail("a negative size or stride");
  }
  return sizes;
}

/// Limits the number of elements that are read: a short pickle could refer to the same elements any number of
/// times, or to one element 2^62 times by strides of 0.
void TensorUnpickler::charge_elements(const at::Tensor& tensor) {
  constexpr uint64_t kMaxReads = 8;
  const auto limit = kMaxReads * source().size();
  const auto size = static_cast<uint64_t>(tensor.element_size());
  if (static_cast<uint64_t>(tensor.numel()) > (limit - read_bytes_) / size) {
    fail("sparse or quantized tensors that repeat their elements");
  }
  read_bytes_ += static_cast<uint64_t>(tensor.numel()) * size;
}

}  // namespace attend::checkpoint
