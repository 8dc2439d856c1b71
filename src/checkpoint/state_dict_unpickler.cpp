#include "checkpoint/state_dict_unpickler.h"

#include <c10/util/StringUtil.h>

#include <array>
#include <optional>

#include "checkpoint/dtype_names.h"
#include "checkpoint/zip.h"

namespace attend::checkpoint {
namespace {

using Kind = Global::Kind;

struct NamedGlobal {
  std::string_view module;
  const char* name;
  Kind kind;
};

// In protocol 2, the module `builtins` has the name that it has in Python 2.
constexpr std::array<NamedGlobal, 32> kGlobals = {{
    {"collections", "OrderedDict", Kind::ordered_dict},
    {"collections", "Counter", Kind::counter},
    {"builtins", "set", Kind::set},
    {"__builtin__", "set", Kind::set},
    {"builtins", "frozenset", Kind::frozenset},
    {"__builtin__", "frozenset", Kind::frozenset},
    {"builtins", "complex", Kind::complex},
    {"__builtin__", "complex", Kind::complex},
    {"builtins", "bytearray", Kind::bytes},
    {"__builtin__", "bytearray", Kind::bytes},
    {"__builtin__", "bytes", Kind::bytes},
    {"_codecs", "encode", Kind::encode},
    {"torch", "Size", Kind::size},
    {"torch", "device", Kind::device},
    {"torch.serialization", "_get_layout", Kind::layout},
    {"torch", "Tensor", Kind::tensor_type},
    {"torch.nn.parameter", "Parameter", Kind::tensor_type},
    {"torch.nn.parameter", "Buffer", Kind::tensor_type},
    {"torch", "per_tensor_affine", Kind::quantization_per_tensor},
    {"torch", "per_channel_affine", Kind::quantization_per_channel},
    {"torch", "per_channel_affine_float_qparams", Kind::quantization_per_channel},
    {"torch._utils", "_rebuild_tensor", Kind::tensor_v1},
    {"torch._utils", "_rebuild_tensor_v2", Kind::tensor_v2},
    {"torch._utils", "_rebuild_tensor_v3", Kind::tensor_v3},
    {"torch._utils", "_rebuild_parameter", Kind::parameter},
    {"torch._utils", "_rebuild_parameter_with_state", Kind::parameter},
    {"torch._tensor", "_rebuild_from_type_v2", Kind::tensor_with_attributes},
    {"torch._utils", "_rebuild_sparse_tensor", Kind::sparse_tensor},
    {"torch._utils", "_rebuild_qtensor", Kind::quantized_tensor},
    {"torch._utils", "_rebuild_device_tensor_from_cpu_tensor", Kind::copied_tensor},
    {"torch.storage", "UntypedStorage", Kind::untyped_storage},
    {"torch", "UntypedStorage", Kind::untyped_storage},
}};

std::optional<at::Layout> layout_named(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, at::Layout>, 6> kLayouts = {{
      {"torch.strided", at::kStrided},
      {"torch.sparse_coo", at::kSparse},
      {"torch.sparse_csr", at::kSparseCsr},
      {"torch.sparse_csc", at::kSparseCsc},
      {"torch.sparse_bsr", at::kSparseBsr},
      {"torch.sparse_bsc", at::kSparseBsc},
  }};
  for (const auto& [known, layout] : kLayouts) {
    if (known == name) return layout;
  }
  return {};
}

}  // namespace

Global StateDictUnpickler::find_global(std::string_view module, std::string_view name) {
  for (const auto& known : kGlobals) {
    if (known.module == module && known.name == name) return {known.kind, at::kByte, known.name};
  }
  if (module == "torch") {
    for (const auto& dtype : kDtypes) {
      if (!name.empty() && dtype.storage == name) {
        return {Kind::typed_storage, dtype.dtype};
      }
      if (dtype.python == name) return {Kind::dtype, dtype.dtype};
    }
  }
  if (module.starts_with("__torch__")) fail_as_torchscript(source());
  source().fail("tensors only, as in torch.save(model.state_dict(), path)",
                "a pickle that refers to " + printable(std::string(module) + "." + std::string(name)));
}

Value StateDictUnpickler::call(const Global& function, const Sequence& arguments) {
  const auto& items = arguments.items;
  switch (function.kind) {
    case Kind::ordered_dict:
      return ordered_dict(arguments);
    case Kind::counter:  // Counter(dict): returns the dict itself, to which nothing else in the pickle refers
      return items.empty() ? new_dictionary() : argument<Dictionary*>("Counter", arguments, 0);
    case Kind::set:  // set(list): turns the list itself into the set, in the same way
      return as_kind(Sequence::Kind::set, function, arguments);
    case Kind::frozenset:
      return as_kind(Sequence::Kind::frozenset, function, arguments);
    case Kind::size:
      return items.empty() ? new_tuple() : argument<Sequence*>("torch.Size", arguments, 0);
    case Kind::device: {
      auto name = std::string(argument<std::string_view>("torch.device", arguments, 0));
      if (items.size() > 1) name += ":" + std::to_string(argument<int64_t>("torch.device", arguments, 1));
      try {
        return c10::Device(name);
      } catch (const c10::Error&) {
        fail("an unknown device " + printable(name));
      }
    }
    case Kind::complex:
      return std::complex<double>(argument<double>("complex", arguments, 0),
                                  argument<double>("complex", arguments, 1));
    case Kind::bytes:
      if (items.empty() || std::holds_alternative<std::monostate>(items[0])) return Bytes{"", false};
      if (const auto* const text = std::get_if<std::string_view>(&items[0])) return Bytes{*text, true};
      return argument<Bytes>("bytes", arguments, 0);
    case Kind::encode:
      return Bytes{argument<std::string_view>("_codecs.encode", arguments, 0), true};
    case Kind::layout: {
      const auto layout = layout_named(argument<std::string_view>("_get_layout", arguments, 0));
      if (!layout) fail_arguments("_get_layout");
      return *layout;
    }
    case Kind::tensor_type:  // torch.nn.Parameter(tensor, requires_grad)
      return argument<at::Tensor>(function.name, arguments, 0);
    case Kind::quantization_per_tensor:
    case Kind::quantization_per_channel:
    case Kind::typed_storage:
    case Kind::untyped_storage:
    case Kind::dtype:
      fail("REDUCE of a non-callable");
    default:
      return rebuild(function, arguments);
  }
}

Value StateDictUnpickler::as_kind(Sequence::Kind kind, const Global& function, const Sequence& arguments) {
  auto* const sequence =
      arguments.items.empty() ? new_tuple() : argument<Sequence*>(function.name, arguments, 0);
  sequence->kind = kind;
  return sequence;
}

/// Calls OrderedDict(), or OrderedDict(pairs), which Python 2 wrote.
Value StateDictUnpickler::ordered_dict(const Sequence& arguments) {
  auto* const dictionary = new_dictionary();
  if (arguments.items.empty()) return dictionary;
  const auto* const pairs = argument<Sequence*>("OrderedDict", arguments, 0);
  charge(pairs->items.size());
  for (size_t n = 0; n < pairs->items.size(); ++n) {
    const auto* const pair = argument<Sequence*>("OrderedDict", *pairs, n);
    if (pair->items.size() != 2) fail_arguments("OrderedDict");
    insert(*dictionary, pair->items[0], pair->items[1]);
  }
  return dictionary;
}

void StateDictUnpickler::fail_arguments(const char* function) const {
  fail(std::string("wrong arguments of ") + function);
}

void StateDictUnpickler::charge(uint64_t bytes) {
  work_ += bytes;
  if (work_ > max_work_) fail("more tensors than a pickle of its size can describe");
}

}  // namespace attend::checkpoint
