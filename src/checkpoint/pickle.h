#pragma once

#include <ATen/core/Tensor.h>

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

/// Memory that tensors can share. The elements of an untyped storage are bytes.
struct Storage {
  at::Tensor elements;
  bool is_typed;
};

/// A Python object that a pickle of tensors may refer to by module and name.
struct Global {
  enum class Kind {
    ordered_dict,
    tensor_v2,
    tensor_v3,
    parameter,
    parameter_with_state,
    typed_storage,
    untyped_storage,
    dtype
  };
  Kind kind;
  at::ScalarType dtype = at::kByte;  ///< that of a typed storage class, or the dtype itself
};

/// A Python value in a pickle of tensors. std::monostate is None, or an integer beyond 64 bits.
using Value = std::variant<std::monostate, bool, int64_t, double, std::string_view, Sequence*, Dictionary*,
                           Global, Storage, at::Tensor>;

/// A list or a tuple.
struct Sequence {
  bool is_tuple;
  std::vector<Value> items = {};
};

/// A dict or OrderedDict, in the order of insertion.
struct Dictionary {
  std::vector<std::pair<Value, Value>> items = {};
};

/// "an int", "a tensor", ...: the type of a value, for errors.
const char* type_name(const Value& value);

/// Interprets a pickle: the opcodes, of protocols 2 to 5, that `torch.save` writes for tensors. Python's
/// pickletools.py describes them. The derived class decides what globals, persistent ids and calls mean.
///
/// The machine owns the sequences and dictionaries, which may contain each other in cycles.
class Unpickler {
 public:
  Unpickler(const Source& source, std::string_view pickle) : source_(source), rest_(pickle) {}
  Unpickler(const Unpickler&) = delete;
  Unpickler& operator=(const Unpickler&) = delete;
  virtual ~Unpickler() = default;

  /// The value at the top of the stack at STOP.
  Value run();

 protected:
  virtual Global find_global(std::string_view module, std::string_view name) = 0;
  virtual Value load_persistent(const Sequence& id) = 0;
  virtual Value call(const Global& function, const Sequence& arguments) = 0;

  Value new_dictionary() { return &dictionaries_.emplace_back(); }
  /// Throws c10::Error: "... expected a pickle of tensors, got ...".
  [[noreturn]] void fail(const std::string& got) const;
  const Source& source() const { return source_; }

 private:
  void execute(uint8_t opcode);

  std::string_view read(uint64_t size);
  std::string_view read_line();
  template <typename T>
  T read_number();
  Value read_long();
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
  void push_tuple(size_t first);
  void append_from(size_t first);
  void set_items_from(size_t first);
  void push_global();
  void push_stack_global();
  void reduce();
  void build();

  const Source& source_;
  std::string_view rest_;    ///< of the pickle
  std::deque<Value> stack_;  ///< not a vector: growing one would copy it and double its memory
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value> memo_;
  std::deque<Sequence> sequences_;
  std::deque<Dictionary> dictionaries_;
  Sequence empty_tuple_ = {.is_tuple = true};
};

}  // namespace attend::checkpoint
