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

/// The memory that tensors share, and the dtype that its class names; none for an untyped storage.
struct Storage {
  at::Tensor elements;
  bool is_typed;
};

/// A name of Python that a pickle of tensors may use.
struct Global {
  enum class Kind {
    ordered_dict,
    tensor_v2,
    tensor_v3,
    parameter,
    parameter_with_state,
    storage,
    untyped,
    dtype
  };
  Kind kind;
  at::ScalarType dtype = at::kByte;  ///< of a storage class or a dtype
};

/// A value of Python, as far as a pickle of tensors has it; whole numbers beyond 64 bits are none.
using Value = std::variant<std::monostate, bool, int64_t, double, std::string_view, Sequence*, Dictionary*,
                           Global, Storage, at::Tensor>;

struct Sequence {
  bool is_tuple;
  std::vector<Value> items = {};
};

struct Dictionary {
  std::vector<std::pair<Value, Value>> items = {};
};

/// The machine that runs a pickle (Python's pickletools.py describes the instructions): those that
/// `torch.save` needs, protocols 2 to 5. What a name, a persistent id and a call mean is the derived class's
/// affair. The values live as long as the machine; they may contain each other in circles.
class Unpickler {
 public:
  Unpickler(const Source& source, std::string_view pickle) : source_(source), rest_(pickle) {}
  Unpickler(const Unpickler&) = delete;
  Unpickler& operator=(const Unpickler&) = delete;
  virtual ~Unpickler() = default;

  Value run();

 protected:
  virtual Global find_global(std::string_view module, std::string_view name) = 0;
  virtual Value load_persistent(const Sequence& id) = 0;
  virtual Value call(const Global& function, const Sequence& arguments) = 0;

  Value new_dictionary() { return &dictionaries_.emplace_back(); }
  [[noreturn]] void fail(const std::string& got) const;
  const Source& source() const { return source_; }

 private:
  bool push_constant(uint8_t code);
  bool push_text(uint8_t code);
  bool use_memo(uint8_t code);
  bool build_tuple(uint8_t code);
  bool fill(uint8_t code);
  bool call_name(uint8_t code);

  std::string_view take(uint64_t size);
  std::string_view take_line();
  template <typename T>
  T take_number();
  int64_t take_long();

  void push(Value value) { stack_.push_back(std::move(value)); }
  Value pop();
  size_t pop_mark();
  template <typename T>
  T pop_as(const char* what);
  void push_tuple(size_t first);
  void append_from(size_t first);
  void set_from(size_t first);
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  const Source& source_;
  std::string_view rest_;
  std::deque<Value> stack_;  // not a vector, which would double
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value> memo_;
  std::deque<Sequence> sequences_;
  std::deque<Dictionary> dictionaries_;
  Sequence empty_tuple_ = {.is_tuple = true};
};

}  // namespace attend::checkpoint
