#include "checkpoint/pickle.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <iterator>

#include "checkpoint/pickle_opcodes.h"

namespace attend::checkpoint {
namespace {

std::string opcode_name(uint8_t opcode) {
  for (const auto& [other, name] : kOtherOpcodes) {
    if (other == opcode) return std::string("the opcode ") + name;
  }
  return c10::str("the byte ", int{opcode}, ", which is no opcode");
}

const char* sequence_name(Sequence::Kind kind) {
  switch (kind) {
    case Sequence::Kind::list:
      return "a list";
    case Sequence::Kind::tuple:
      return "a tuple";
    case Sequence::Kind::set:
      return "a set";
    default:
      return "a frozenset";
  }
}

/// Whether a value can be the key of a dict in Python.
bool is_hashable(const Value& value) {
  if (std::holds_alternative<Dictionary*>(value)) return false;
  const auto* const sequence = std::get_if<Sequence*>(&value);
  return sequence == nullptr || (*sequence)->kind == Sequence::Kind::tuple ||
         (*sequence)->kind == Sequence::Kind::frozenset;
}

}  // namespace

const char* type_name(const Value& value) {
  constexpr std::array<const char*, std::variant_size_v<Value>> kNames = {
      "None",      "a bool",   "an int", "a float", "a str",     "a sequence", "a dict",  "a global",
      "a storage", "a tensor", "an int", "bytes",   "a complex", "a device",   "a layout"};
  if (const auto* const sequence = std::get_if<Sequence*>(&value)) return sequence_name((*sequence)->kind);
  return kNames.at(value.index());
}

void Unpickler::fail(const std::string& got) const { source_.fail("a pickle of tensors", got); }

Value Unpickler::run() {
  while (true) {
    const auto opcode = read_number<uint8_t>();
    if (static_cast<Opcode>(opcode) == Opcode::stop) return pop();
    execute(opcode);
  }
}

void Unpickler::execute(uint8_t opcode) {
  switch (static_cast<Opcode>(opcode)) {
    case Opcode::proto:
      read(1);
      return;
    case Opcode::frame:
      read(8);
      return;

    case Opcode::none:
      return push({});
    case Opcode::newtrue:
      return push(true);
    case Opcode::newfalse:
      return push(false);
    case Opcode::binint:
      return push(int64_t{read_number<int32_t>()});
    case Opcode::binint1:
      return push(int64_t{read_number<uint8_t>()});
    case Opcode::binint2:
      return push(int64_t{read_number<uint16_t>()});
    case Opcode::long1:
      return push(read_long(read_number<uint8_t>()));
    case Opcode::long4:
      return push(read_long(read_number<uint32_t>()));
    case Opcode::binfloat:
      return push(read_big_endian_double());
    case Opcode::binunicode:
    case Opcode::binstring:  // a str of Python 2
      return push(read(read_number<uint32_t>()));
    case Opcode::short_binunicode:
    case Opcode::short_binstring:
      return push(read(read_number<uint8_t>()));
    case Opcode::binunicode8:
      return push(read(read_number<uint64_t>()));
    case Opcode::binbytes:
      return push(Bytes{read(read_number<uint32_t>()), false});
    case Opcode::short_binbytes:
      return push(Bytes{read(read_number<uint8_t>()), false});
    case Opcode::binbytes8:
    case Opcode::bytearray8:
      return push(Bytes{read(read_number<uint64_t>()), false});

    case Opcode::binput:
      return store_memo(read_number<uint8_t>());
    case Opcode::long_binput:
      return store_memo(read_number<uint32_t>());
    case Opcode::memoize:
      return store_memo(static_cast<uint32_t>(memo_.size()));
    case Opcode::binget:
      return push_memo(read_number<uint8_t>());
    case Opcode::long_binget:
      return push_memo(read_number<uint32_t>());

    case Opcode::pop:
      if (stack_.size() > stack_floor()) return stack_.pop_back();
      pop_mark();
      return;
    case Opcode::pop_mark: {
      const auto first = static_cast<std::ptrdiff_t>(pop_mark());
      stack_.erase(stack_.begin() + first, stack_.end());
      return;
    }
    case Opcode::dup:
      if (stack_.size() <= stack_floor()) fail("a stack underflow");
      return push(stack_.back());
    case Opcode::mark:
      return marks_.push_back(stack_.size());
    case Opcode::empty_tuple:
      return push(&empty_tuple_);
    case Opcode::tuple:
      return push_sequence(Sequence::Kind::tuple, pop_mark());
    case Opcode::tuple1:
      return push_sequence(Sequence::Kind::tuple, index_from_top(1));
    case Opcode::tuple2:
      return push_sequence(Sequence::Kind::tuple, index_from_top(2));
    case Opcode::tuple3:
      return push_sequence(Sequence::Kind::tuple, index_from_top(3));
    case Opcode::frozenset:
      return push_sequence(Sequence::Kind::frozenset, pop_mark());

    case Opcode::empty_list:
      return push_sequence(Sequence::Kind::list, stack_.size());
    case Opcode::empty_set:
      return push_sequence(Sequence::Kind::set, stack_.size());
    case Opcode::empty_dict:
      return push(new_dictionary());
    case Opcode::append:
      return append_from(index_from_top(1), Sequence::Kind::list);
    case Opcode::appends:
      return append_from(pop_mark(), Sequence::Kind::list);
    case Opcode::additems:
      return append_from(pop_mark(), Sequence::Kind::set);
    case Opcode::setitem:
      return set_items_from(index_from_top(2));
    case Opcode::setitems:
      return set_items_from(pop_mark());

    case Opcode::global:
      return push_global();
    case Opcode::stack_global:
      return push_stack_global();
    case Opcode::binpersid:
      return push(load_persistent(*pop_as<Sequence*>("a tuple as the persistent id")));
    case Opcode::reduce:
    case Opcode::newobj:
      return reduce();
    case Opcode::build:
      return build();

    default:
      fail(opcode_name(opcode));
  }
}

// ---- operands, which follow an opcode in the pickle

std::string_view Unpickler::read(uint64_t size) {
  if (size > rest_.size()) fail("a truncated pickle");
  const auto bytes = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return bytes;
}

std::string_view Unpickler::read_line() {
  const auto end = rest_.find('\n');
  if (end == std::string_view::npos) fail("a truncated pickle");
  const auto line = read(end);
  read(1);
  return line;
}

template <typename T>
T Unpickler::read_number() {
  T number = 0;
  std::memcpy(&number, read(sizeof(T)).data(), sizeof(T));
  return number;
}

/// Reads an integer of `size` bytes in two's complement.
Value Unpickler::read_long(uint64_t size) {
  const auto bytes = read(size);
  if (bytes.size() > sizeof(uint64_t)) return BigInteger{bytes};
  if (bytes.empty()) return int64_t{0};
  uint64_t number = (static_cast<uint8_t>(bytes.back()) & 0x80U) != 0 ? ~uint64_t{0} : 0;
  std::memcpy(&number, bytes.data(), bytes.size());
  return static_cast<int64_t>(number);
}

double Unpickler::read_big_endian_double() {
  return std::bit_cast<double>(__builtin_bswap64(read_number<uint64_t>()));
}

// ---- the stack and the memo

Value Unpickler::pop() {
  if (stack_.size() <= stack_floor()) fail("a stack underflow");
  auto value = std::move(stack_.back());
  stack_.pop_back();
  return value;
}

template <typename T>
T Unpickler::pop_as(const char* expected) {
  const auto value = pop();
  const auto* const found = std::get_if<T>(&value);
  if (found == nullptr) fail(c10::str(type_name(value), " in place of ", expected));
  return *found;
}

/// Removes the topmost mark, and returns the index of the value that follows the mark.
size_t Unpickler::pop_mark() {
  if (marks_.empty()) fail("an opcode that needs a MARK, without one");
  const size_t mark = marks_.back();
  marks_.pop_back();
  return mark;
}

/// Returns the index of the first of the topmost `count` values.
size_t Unpickler::index_from_top(size_t count) const {
  if (stack_.size() < stack_floor() + count) fail("a stack underflow");
  return stack_.size() - count;
}

void Unpickler::store_memo(uint32_t index) {
  if (stack_.size() <= stack_floor()) fail("a stack underflow");
  memo_[index] = stack_.back();
}

void Unpickler::push_memo(uint32_t index) {
  const auto found = memo_.find(index);
  if (found == memo_.end()) fail(c10::str("a memo lookup of index ", index, ", which was never stored"));
  push(found->second);
}

// ---- containers

/// Replaces the values from index `first` to the top by one sequence of these values.
void Unpickler::push_sequence(Sequence::Kind kind, size_t first) {
  auto& sequence = sequences_.emplace_back(Sequence{.kind = kind});
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(first);
  sequence.items.assign(std::make_move_iterator(begin), std::make_move_iterator(stack_.end()));
  stack_.erase(begin, stack_.end());
  push(&sequence);
}

/// Appends the values from index `first` to the top of the stack to the list or set below them.
void Unpickler::append_from(size_t first, Sequence::Kind kind) {
  std::vector<Value> values;
  while (stack_.size() > first) values.push_back(pop());
  const auto expected = sequence_name(kind) + std::string(" to append to");
  auto* const sequence = pop_as<Sequence*>(expected.c_str());
  if (sequence->kind != kind) {
    fail(c10::str(sequence_name(sequence->kind), " in place of ", expected));
  }
  sequence->items.insert(sequence->items.end(), std::make_move_iterator(values.rbegin()),
                         std::make_move_iterator(values.rend()));
  push(sequence);
}

void Unpickler::insert(Dictionary& dictionary, Value key, Value value) const {
  if (!is_hashable(key)) fail(c10::str(type_name(key), " as the key of a dict"));
  dictionary.items.emplace_back(std::move(key), std::move(value));
}

/// Inserts the pairs (key, value) from index `first` to the top of the stack into the dict below them.
void Unpickler::set_items_from(size_t first) {
  std::vector<std::pair<Value, Value>> items;
  while (stack_.size() > first) {
    auto value = pop();
    if (stack_.size() == first) fail("a dict key without a value");
    items.emplace_back(pop(), std::move(value));
  }
  auto* const dictionary = pop_as<Dictionary*>("a dict to insert into");
  for (auto item = items.rbegin(); item != items.rend(); ++item) {
    insert(*dictionary, std::move(item->first), std::move(item->second));
  }
  push(dictionary);
}

// ---- globals and calls

void Unpickler::push_global() {
  const auto module = read_line();
  push(find_global(module, read_line()));
}

void Unpickler::push_stack_global() {
  const auto name = pop_as<std::string_view>("the name of a global");
  push(find_global(pop_as<std::string_view>("the module of a global"), name));
}

void Unpickler::reduce() {
  const auto* const arguments = pop_as<Sequence*>("a tuple of arguments");
  push(call(pop_as<Global>("a callable for REDUCE"), *arguments));
}

/// Ignores the attributes of a dict. A state dict has only the attribute `_metadata`, the version numbers of
/// modules.
void Unpickler::build() {
  pop_as<Dictionary*>("a dict of attributes");
  push(pop_as<Dictionary*>("a dict to set attributes of"));
}

}  // namespace attend::checkpoint
