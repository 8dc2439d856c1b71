#include "checkpoint/pickle.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <cstring>
#include <iterator>

namespace attend::checkpoint {
namespace {

enum Code : uint8_t {
  kMark = '(',
  kStop = '.',
  kNone = 'N',
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kBinFloat = 'G',
  kBinUnicode = 'X',
  kShortBinUnicode = 0x8c,
  kBinPut = 'q',
  kLongBinPut = 'r',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kMemoize = 0x94,
  kEmptyTuple = ')',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kEmptyList = ']',
  kEmptyDict = '}',
  kAppend = 'a',
  kAppends = 'e',
  kSetItem = 's',
  kSetItems = 'u',
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kReduce = 'R',
  kBuild = 'b',
  kBinPersistentId = 'Q',
  kProtocol = 0x80,
  kFrame = 0x95,
};

}  // namespace

void Unpickler::fail(const std::string& got) const { source_.fail("a pickle of tensors", got); }

// ---- the text of the pickle

std::string_view Unpickler::take(uint64_t size) {
  if (size > rest_.size()) fail("one that is cut short");
  const auto taken = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return taken;
}

std::string_view Unpickler::take_line() {
  const auto end = rest_.find('\n');
  if (end == std::string_view::npos) fail("one that is cut short");
  const auto line = take(end);
  take(1);
  return line;
}

template <typename T>
T Unpickler::take_number() {
  T number = 0;
  std::memcpy(&number, take(sizeof(T)).data(), sizeof(T));
  return number;
}

/// The next `size` bytes are a number in two's complement, of at most 8 bytes.
int64_t Unpickler::take_long() {
  const auto text = take(take_number<uint8_t>());
  if (text.empty()) return 0;
  uint64_t number = (static_cast<uint8_t>(text.back()) & 0x80U) != 0 ? ~uint64_t{0} : 0;
  std::memcpy(&number, text.data(), std::min<size_t>(text.size(), 8));
  return static_cast<int64_t>(number);
}

// ---- the stack

Value Unpickler::pop() {
  if (stack_.size() <= floor()) fail("one that takes a value where there is none");
  auto value = std::move(stack_.back());
  stack_.pop_back();
  return value;
}

size_t Unpickler::pop_mark() {
  if (marks_.empty()) fail("one that takes a mark where there is none");
  const size_t mark = marks_.back();
  marks_.pop_back();
  return mark;
}

template <typename T>
T Unpickler::pop_as(const char* what) {
  const auto value = pop();
  const auto* const found = std::get_if<T>(&value);
  if (found == nullptr) fail(std::string("one that has something else where it needs ") + what);
  return *found;
}

void Unpickler::push_tuple(size_t first) {
  if (stack_.size() < first || first < floor()) fail("one that takes a value where there is none");
  auto& tuple = sequences_.emplace_back(Sequence{.is_tuple = true});
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(first);
  tuple.items.assign(std::make_move_iterator(begin), std::make_move_iterator(stack_.end()));
  stack_.erase(begin, stack_.end());
  push(&tuple);
}

/// Appends the values from `first` on to the list below them.
void Unpickler::append_from(size_t first) {
  std::vector<Value> values;
  while (stack_.size() > first) values.push_back(pop());
  auto* const list = pop_as<Sequence*>("a list");
  if (list->is_tuple) fail("one that appends to a tuple");
  list->items.insert(list->items.end(), std::make_move_iterator(values.rbegin()),
                     std::make_move_iterator(values.rend()));
  push(list);
}

/// Puts the pairs of key and value from `first` on into the dictionary below them.
void Unpickler::set_from(size_t first) {
  std::vector<std::pair<Value, Value>> items;
  while (stack_.size() > first) {
    auto value = pop();
    if (stack_.size() == first) fail("one that has a key without a value");
    items.emplace_back(pop(), std::move(value));
  }
  auto* const dictionary = pop_as<Dictionary*>("a dictionary");
  dictionary->items.insert(dictionary->items.end(), std::make_move_iterator(items.rbegin()),
                           std::make_move_iterator(items.rend()));
  push(dictionary);
}

// ---- the instructions, by what they do

bool Unpickler::push_constant(uint8_t code) {
  switch (code) {
    case kNone:
      return push({}), true;
    case kNewTrue:
    case kNewFalse:
      return push(code == kNewTrue), true;
    case kBinInt:
      return push(int64_t{take_number<int32_t>()}), true;
    case kBinInt1:
      return push(int64_t{take_number<uint8_t>()}), true;
    case kBinInt2:
      return push(int64_t{take_number<uint16_t>()}), true;
    case kLong1:
      if (rest_.empty() || static_cast<uint8_t>(rest_.front()) <= 8) return push(take_long()), true;
      return take(take_number<uint8_t>()), push({}), true;
    case kBinFloat: {
      const auto bits = __builtin_bswap64(take_number<uint64_t>());
      double number = 0;
      std::memcpy(&number, &bits, sizeof(number));
      return push(number), true;
    }
    default:
      return push_text(code);
  }
}

bool Unpickler::push_text(uint8_t code) {
  switch (code) {
    case kBinUnicode:
      return push(take(take_number<uint32_t>())), true;
    case kShortBinUnicode:
      return push(take(take_number<uint8_t>())), true;
    default:
      return false;
  }
}

bool Unpickler::use_memo(uint8_t code) {
  const auto put = [&](uint32_t index) {
    if (stack_.size() <= floor()) fail("one that takes a value where there is none");
    memo_[index] = stack_.back();
  };
  const auto get = [&](uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("one that recalls what it never put by");
    push(found->second);
  };
  switch (code) {
    case kBinPut:
      return put(take_number<uint8_t>()), true;
    case kLongBinPut:
      return put(take_number<uint32_t>()), true;
    case kMemoize:
      return put(static_cast<uint32_t>(memo_.size())), true;
    case kBinGet:
      return get(take_number<uint8_t>()), true;
    case kLongBinGet:
      return get(take_number<uint32_t>()), true;
    default:
      return false;
  }
}

bool Unpickler::build_tuple(uint8_t code) {
  switch (code) {
    case kMark:
      return marks_.push_back(stack_.size()), true;
    case kEmptyTuple:
      return push(&empty_tuple_), true;
    case kTuple:
      return push_tuple(pop_mark()), true;
    case kTuple1:
    case kTuple2:
    case kTuple3: {
      const size_t size = code - kTuple1 + 1U;
      if (stack_.size() < size) fail("one that takes a value where there is none");
      return push_tuple(stack_.size() - size), true;
    }
    default:
      return false;
  }
}

bool Unpickler::fill(uint8_t code) {
  const auto below = [&](size_t count) { return stack_.size() - std::min(stack_.size(), count); };
  switch (code) {
    case kEmptyList:
      return push(&sequences_.emplace_back(Sequence{.is_tuple = false})), true;
    case kEmptyDict:
      return push(new_dictionary()), true;
    case kAppend:
      return append_from(below(1)), true;
    case kAppends:
      return append_from(pop_mark()), true;
    case kSetItem:
      return set_from(below(2)), true;
    case kSetItems:
      return set_from(pop_mark()), true;
    default:
      return false;
  }
}

bool Unpickler::call_name(uint8_t code) {
  switch (code) {
    case kGlobal: {
      const auto module = take_line();
      return push(find_global(module, take_line())), true;
    }
    case kStackGlobal: {
      const auto name = pop_as<std::string_view>("a name");
      return push(find_global(pop_as<std::string_view>("a module's name"), name)), true;
    }
    case kBinPersistentId:
      return push(load_persistent(*pop_as<Sequence*>("a persistent id"))), true;
    case kReduce: {
      const auto* const arguments = pop_as<Sequence*>("arguments");
      return push(call(pop_as<Global>("a name to call"), *arguments)), true;
    }
    case kBuild: {
      // The attributes of a dictionary: the version numbers of modules, which nothing here asks for.
      pop_as<Dictionary*>("attributes");
      auto* const dictionary = pop_as<Dictionary*>("a dictionary to give attributes");
      return push(dictionary), true;
    }
    default:
      return false;
  }
}

Value Unpickler::run() {
  while (true) {
    const auto code = take_number<uint8_t>();
    if (code == kStop) return pop();
    if (code == kProtocol) {
      take(1);
    } else if (code == kFrame) {
      take(8);
    } else if (!push_constant(code) && !use_memo(code) && !build_tuple(code) && !fill(code) &&
               !call_name(code)) {
      fail(c10::str("one with the instruction ", int{code}, ", which tensors do not need"));
    }
  }
}

}  // namespace attend::checkpoint
