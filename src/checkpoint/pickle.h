#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Layout.h>

#include <complex>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "checkpoint/mapped_file.h"

namespace attend::checkpoint {

struct Sequence;
struct Dictionary;

/// Memory that tensors can share. The elements of an untyped storage are bytes; those of a quantized storage
/// are integers.
struct Storage {
  at::Tensor elements;
  at::ScalarType dtype;
  bool is_typed;
};

/// A Python object that a pickle of tensors may refer to by module and name.
struct Global {
  enum class Kind : uint8_t {
    // Functions and classes that make values.
    ordered_dict,
    counter,
    set,
    frozenset,
    size,
    device,
    complex,
    bytes,
    encode,  ///< converts text to bytes
    layout,
    // Functions that rebuild tensors.
    tensor_v1,
    tensor_v2,
    tensor_v3,
    parameter,
    tensor_with_attributes,
    sparse_tensor,
    quantized_tensor,
    copied_tensor,
    // The following globals are not called.
    tensor_type,
    quantization_per_tensor,
    quantization_per_channel,
    typed_storage,
    untyped_storage,
    dtype
  };
  Kind kind;
  at::ScalarType dtype = at::kByte;  ///< the dtype of a typed storage class, or the dtype that the global is
  const char* name = "";             ///< that of a function or class, without the module
};

/// bytes or bytearray.
struct Bytes {
  std::string_view text;
  bool is_utf8;  ///< whether `text` is UTF-8 of characters below 256, each of which is one byte
};

/// An integer beyond 64 bits: its bytes in two's complement, the lowest first.
struct BigInteger {
  std::string_view bytes;
};

/// A Python value in a pickle of tensors. std::monostate is None.
using Value =
    std::variant<std::monostate, bool, int64_t, double, std::string_view, Sequence*, Dictionary*, Global,
                 Storage, at::Tensor, BigInteger, Bytes, std::complex<double>, c10::Device, at::Layout>;

/// A list, tuple (also a torch.Size) or set.
struct Sequence {
  enum class Kind : uint8_t { list, tuple, set, frozenset };
  Kind kind;
  std::vector<Value> items = {};
};

/// A dict, OrderedDict or Counter, in the order of insertion.
struct Dictionary {
  std::vector<std::pair<Value, Value>> items = {};
};

/// Returns the type of a value for error messages: "an int", "a tensor", ...
const char* type_name(const Value& value);

/// Interprets a pickle: the opcodes of protocols 2 to 5, without those for arbitrary objects. Python's
/// pickletools.py describes the opcodes. The derived class defines the meaning of globals, persistent ids and
/// calls.
///
/// This object owns the sequences and dictionaries, which may contain each other in cycles. Its memory is in
/// proportion to the size of the pickle.
class Unpickler {
 public:
  Unpickler(const Source& source, std::string_view pickle) : source_(source), rest_(pickle) {}
  Unpickler(const Unpickler&) = delete;
  Unpickler& operator=(const Unpickler&) = delete;
  virtual ~Unpickler() = default;

  /// Returns the value at the top of the stack at the opcode STOP.
  Value run();
  /// Returns the bytes after the opcode STOP.
  std::string_view rest() const { return rest_; }

 protected:
  virtual Global find_global(std::string_view module, std::string_view name) = 0;
  virtual Value load_persistent(const Sequence& id) = 0;
  virtual Value call(const Global& function, const Sequence& arguments) = 0;

  Dictionary* new_dictionary() { return &dictionaries_.emplace_back(); }
  Sequence* new_tuple() { return &sequences_.emplace_back(Sequence{.kind = Sequence::Kind::tuple}); }
  /// Inserts an item. Fails if the key is not hashable in Python.
  void insert(Dictionary& dictionary, Value key, Value value) const;
  /// Throws c10::Error: "... expected a pickle of tensors, got ...".
  [[noreturn]] void fail(const std::string& got) const;
  const Source& source() const { return source_; }

 private:
  void execute(uint8_t opcode);

  std::string_view read(uint64_t size);
  std::string_view read_line();
  template <typename T>
  T read_number();
  Value read_long(uint64_t size);
  double read_big_endian_double();

  void push(Value value) { stack_.push_back(std::move(value)); }
  Value pop();
  template <typename T>
  T pop_as(const char* expected);
  size_t pop_mark();
  size_t index_from_top(size_t count) const;
  size_t stack_floor() const { return marks_.empty() ? 0 : marks_.back(); }

  void store_memo(uint32_t index);
  void push_memo(uint32_t index);
  void push_sequence(Sequence::Kind kind, size_t first);
  void append_from(size_t first, Sequence::Kind kind);
  void set_items_from(size_t first);
  void push_global();
  void push_stack_global();
  void reduce();
  void build();

  const Source& source_;
  std::string_view rest_;    ///< the bytes of the pickle that are not read yet
  std::deque<Value> stack_;  ///< not a vector, which would be copied when it grows, with double the memory
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value> memo_;
  std::deque<Sequence> sequences_;
  std::deque<Dictionary> dictionaries_;
  Sequence empty_tuple_ = {.kind = Sequence::Kind::tuple};
};

}  // namespace attend::checkpoint
