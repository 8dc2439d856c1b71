#include <ATen/TensorOperators.h>
#include <attend/checkpoint.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <optional>
#include <unordered_map>

#include "checkpoint/dtype_names.h"
#include "checkpoint/mapped_file.h"
#include "checkpoint/pickle.h"
#include "checkpoint/zip.h"

namespace attend {
namespace {

using checkpoint::Dictionary;
using checkpoint::DtypeNames;
using checkpoint::Global;
using checkpoint::Sequence;
using checkpoint::shown;
using checkpoint::Source;
using checkpoint::Storage;
using checkpoint::Value;
using checkpoint::ZipEntry;

using Files = std::unordered_map<std::string, ZipEntry>;

/// The archive of torch.save: a folder, whose name is any, with data.pkl, byteorder and the storages
/// data/KEY.
class Archive {
 public:
  explicit Archive(const Source& source) : source_(source), files_(checkpoint::read_zip(source)) {
    constexpr std::string_view kPickle = "/data.pkl";
    for (const auto& [name, entry] : files_) {
      if (name.ends_with(kPickle) && name.find('/') == name.size() - kPickle.size()) {
        folder_ = name.substr(0, name.size() - kPickle.size() + 1);
        pickle_ = text(entry);
      }
    }
    if (folder_.empty()) source.fail("an archive of torch.save, with data.pkl", "another zip file");
    const auto order = file("byteorder");
    if (order && text(*order) != "little") source.fail("numbers in little-endian order", shown(text(*order)));
  }

  std::string_view pickle() const { return pickle_; }

  /// A storage as a tensor [count].
  at::Tensor storage(std::string_view key, uint64_t count, at::ScalarType dtype) const {
    const auto entry = file("data/" + std::string(key));
    if (!entry) source_.fail("the storage " + shown(key), "none in the archive");
    if (entry->size / c10::elementSize(dtype) != count || entry->size % c10::elementSize(dtype) != 0) {
      source_.fail(c10::str("a storage ", shown(key), " of ", count, " elements"),
                   c10::str(entry->size, " bytes"));
    }
    return elements(source_, entry->offset, count, dtype);
  }

 private:
  std::optional<ZipEntry> file(const std::string& name) const {
    const auto found = files_.find(folder_ + name);
    return found == files_.end() ? std::nullopt : std::optional(found->second);
  }

  std::string_view text(const ZipEntry& entry) const { return {source_.data() + entry.offset, entry.size}; }

  const Source& source_;
  Files files_;
  std::string folder_;
  std::string_view pickle_;
};

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
    {"torch.storage", "UntypedStorage", Global::Kind::untyped},
}};

/// The machine with the names of PyTorch.
class TensorUnpickler final : public checkpoint::Unpickler {
 public:
  TensorUnpickler(const Source& source, const Archive& archive)
      : Unpickler(source, archive.pickle()), archive_(archive) {}

 private:
  Global find_global(std::string_view module, std::string_view name) override {
    for (const auto& known : kGlobals) {
      if (known.module == module && known.name == name) return {known.kind};
    }
    if (module == "torch") {
      if (const auto dtype = dtype_of(&DtypeNames::storage, name)) return {Global::Kind::storage, *dtype};
      if (const auto dtype = dtype_of(&DtypeNames::python, name)) return {Global::Kind::dtype, *dtype};
    }
    if (module.starts_with("__torch__")) fail_as_of_cpp(source());
    source().fail("tensors alone, as in torch.save(model.state_dict(), path)",
                  "a pickle that names " + shown(std::string(module) + "." + std::string(name)));
  }

  template <typename T>
  T argument(const Sequence& arguments, size_t index) const {
    const auto* const found =
        index < arguments.items.size() ? std::get_if<T>(&arguments.items[index]) : nullptr;
    if (found == nullptr) fail("one with a tensor of wrong parts");
    return *found;
  }

  /// ("storage", class, key, device, number of elements)
  Value load_persistent(const Sequence& id) override {
    const auto type = argument<Global>(id, 1);
    const auto key = argument<std::string_view>(id, 2);
    const auto count = argument<int64_t>(id, 4);
    const bool is_typed = type.kind == Global::Kind::storage;
    if (argument<std::string_view>(id, 0) != "storage" || count < 0 ||
        (!is_typed && type.kind != Global::Kind::untyped)) {
      fail("one with a storage of wrong parts");
    }
    auto& storage = storages_[key];
    if (!storage.elements.defined()) {
      storage = {archive_.storage(key, static_cast<uint64_t>(count), type.dtype), is_typed};
    }
    if (storage.elements.scalar_type() != type.dtype || storage.elements.numel() != count ||
        storage.is_typed != is_typed) {
      fail("one with a storage of two kinds");
    }
    return storage;
  }

  Value call(const Global& function, const Sequence& arguments) override {
    switch (function.kind) {
      case Global::Kind::ordered_dict:
        if (!arguments.items.empty()) fail("one with an OrderedDict of wrong parts");
        return new_dictionary();
      case Global::Kind::tensor_v2:
      case Global::Kind::tensor_v3:
        return rebuild_tensor(arguments, function.kind == Global::Kind::tensor_v3);
      case Global::Kind::parameter:
      case Global::Kind::parameter_with_state:
        return argument<at::Tensor>(arguments, 0);
      default:
        fail("one that calls what is no function");
    }
  }

  /// (storage, offset, size, stride, requires_grad, hooks, dtype); the dtype in version 3 alone, whose
  /// storage is of bytes.
  Value rebuild_tensor(const Sequence& arguments, bool has_dtype) {
    const auto storage = argument<Storage>(arguments, 0);
    auto elements = storage.elements;
    if (has_dtype == storage.is_typed) fail("one with a tensor of wrong parts");
    if (has_dtype) elements = with_dtype(storage.elements, argument<Global>(arguments, 6));
    const auto offset = argument<int64_t>(arguments, 1);
    const auto sizes = numbers(*argument<Sequence*>(arguments, 2)),
               strides = numbers(*argument<Sequence*>(arguments, 3));
    charge(sizes.size());
    if (offset < 0 || sizes.size() != strides.size() || !fits(elements.numel(), offset, sizes, strides)) {
      fail(c10::str("one with a tensor ", sizes, " with strides ", strides, " at ", offset,
                    " in a storage of ", elements.numel()));
    }
    return with_metadata(elements.as_strided(sizes, strides, offset), arguments, has_dtype ? 7 : 6);
  }

  /// What stands beside a tensor whose numbers are to be read conjugated or negated.
  at::Tensor with_metadata(at::Tensor tensor, const Sequence& arguments, size_t index) const {
    if (index >= arguments.items.size() || std::holds_alternative<std::monostate>(arguments.items[index])) {
      return tensor;
    }
    for (const auto& [key, value] : argument<Dictionary*>(arguments, index)->items) {
      const auto* const name = std::get_if<std::string_view>(&key);
      const auto* const is_set = std::get_if<bool>(&value);
      if (name == nullptr || is_set == nullptr || (*name != "conj" && *name != "neg")) {
        fail("one with a tensor of wrong parts");
      }
      if (*is_set) tensor = *name == "conj" ? tensor._conj() : tensor._neg_view();
    }
    return tensor;
  }

  /// Once for a storage, so that its tensors share memory.
  at::Tensor with_dtype(const at::Tensor& bytes, const Global& dtype) {
    if (dtype.kind != Global::Kind::dtype) fail("one with a tensor of wrong parts");
    auto& converted = converted_[{bytes.const_data_ptr(), dtype.dtype}];
    if (!converted.defined()) converted = converted_to(bytes, dtype);
    return converted;
  }

  at::Tensor converted_to(const at::Tensor& bytes, const Global& dtype) const {
    const auto size = static_cast<int64_t>(c10::elementSize(dtype.dtype));
    const auto address = reinterpret_cast<uintptr_t>(bytes.const_data_ptr());
    if (bytes.numel() % size != 0) fail("one with a storage that ends within an element");
    if (dtype.dtype == at::kBool) return bytes.ne(0);
    return (address % static_cast<uintptr_t>(size) == 0 ? bytes : bytes.clone()).view(dtype.dtype);
  }

  /// A pickle can build one tensor after the other from the same parts: no more of them than one that writes
  /// out the parts of each has room for.
  void charge(uint64_t dimensions) {
    constexpr uint64_t kFewestBytes = 16;
    work_ += kFewestBytes + dimensions;
    if (work_ > archive_.pickle().size()) fail("one with more tensors than it has room for");
  }

  std::vector<int64_t> numbers(const Sequence& sequence) const {
    constexpr size_t kMostDimensions = 64;  // what ATen's operations can take
    if (sequence.items.size() > kMostDimensions) fail("one with a tensor of more than 64 dimensions");
    std::vector<int64_t> all;
    for (size_t n = 0; n < sequence.items.size(); ++n) {
      all.push_back(argument<int64_t>(sequence, n));
      if (all.back() < 0) fail("one with a size or stride below 0");
    }
    return all;
  }

  /// Whether every element lies in the storage, and their number fits 64 bits.
  static bool fits(int64_t storage, int64_t offset, const std::vector<int64_t>& sizes,
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
    return is_empty ? offset <= storage : last < storage;
  }

  const Archive& archive_;
  std::unordered_map<std::string_view, Storage> storages_;
  std::map<std::pair<const void*, at::ScalarType>, at::Tensor> converted_;  ///< of memory that storages_ hold
  uint64_t work_ = 0;
};

/// Collects the tensors of nested dictionaries and lists, each under its path.
class Flattener {
 public:
  /// `limit`: of the work and of the names' length; a pickle can name one dictionary many times over.
  Flattener(const Source& source, uint64_t limit) : source_(source), left_(limit) {}

  void add(const Value& value, const std::string& path, int depth) {
    charge(1 + path.size() / 16);
    if (depth > kDeepest) endless();
    if (const auto* const tensor = std::get_if<at::Tensor>(&value)) return insert(path, *tensor);
    if (const auto* const dictionary = std::get_if<Dictionary*>(&value)) {
      for (const auto& [key, item] : (*dictionary)->items) {
        if (may_hold_tensors(item)) add(item, joined(path, text_of(key)), depth + 1);
      }
    } else if (const auto* const sequence = std::get_if<Sequence*>(&value)) {
      const auto& items = (*sequence)->items;
      for (size_t n = 0; n < items.size(); ++n) {
        if (may_hold_tensors(items[n])) add(items[n], joined(path, std::to_string(n)), depth + 1);
      }
    }
  }

  Checkpoint take() { return std::move(checkpoint_); }

 private:
  static constexpr int kDeepest = 64;

  [[noreturn]] void endless() const {
    source_.fail("dictionaries that are nested sensibly", "ones without end");
  }

  void charge(uint64_t work) {
    if (work > left_) endless();
    left_ -= work;
  }

  bool may_hold_tensors(const Value& value) {
    charge(1);
    return std::holds_alternative<at::Tensor>(value) || std::holds_alternative<Dictionary*>(value) ||
           std::holds_alternative<Sequence*>(value);
  }

  static std::string joined(const std::string& path, const std::string& key) {
    return path.empty() ? key : path + "." + key;
  }

  std::string text_of(const Value& key) const {
    if (const auto* const text = std::get_if<std::string_view>(&key)) return std::string(*text);
    if (const auto* const number = std::get_if<int64_t>(&key)) return std::to_string(*number);
    source_.fail("text or whole numbers as the keys of dictionaries", "another key");
  }

  void insert(const std::string& path, const at::Tensor& tensor) {
    charge(16 + path.size());
    if (checkpoint_.tensors.contains(path)) source_.fail("each name once", shown(path) + " twice");
    checkpoint_.tensors.insert(path, tensor);
  }

  const Source& source_;
  uint64_t left_;
  Checkpoint checkpoint_;
};

Checkpoint read(const Source& source) {
  const Archive archive(source);
  TensorUnpickler unpickler(source, archive);
  const auto value = unpickler.run();
  if (!std::holds_alternative<Dictionary*>(value))
    source.fail("a dictionary of tensors", "a pickle of something else");
  constexpr uint64_t kWorkPerByte = 4;
  Flattener flattener(source, kWorkPerByte * archive.pickle().size());
  flattener.add(value, "", 0);
  return flattener.take();
}

}  // namespace

Checkpoint load_pytorch(const std::string& path) { return read(checkpoint::map_file("load_pytorch", path)); }

Checkpoint parse_pytorch(const at::Tensor& bytes) {
  return read(checkpoint::source_of("parse_pytorch", bytes));
}

}  // namespace attend
