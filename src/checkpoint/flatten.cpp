#include "checkpoint/flatten.h"

namespace attend::checkpoint {
namespace {

class Flattener {
 public:
  Flattener(const Source& source, uint64_t max_work) : source_(source), work_left_(max_work) {}

  void add(const Value& value, const std::string& path, int depth) {
    constexpr int kMaxDepth = 64;
    charge(1 + path.size() / 16);
    if (depth > kMaxDepth) {
      source_.fail("at most 64 levels of nesting, without cycles", "deeper or cyclic nesting");
    }
    if (const auto* const tensor = std::get_if<at::Tensor>(&value)) return insert(path, *tensor);
    if (const auto* const dictionary = std::get_if<Dictionary*>(&value)) {
      for (const auto& [key, item] : (*dictionary)->items) {
        if (may_contain_tensors(item)) add(item, joined(path, key_text(key)), depth + 1);
      }
    } else if (const auto* const sequence = std::get_if<Sequence*>(&value)) {
      const auto& items = (*sequence)->items;
      for (size_t n = 0; n < items.size(); ++n) {
        if (may_contain_tensors(items[n])) add(items[n], joined(path, std::to_string(n)), depth + 1);
      }
    }
  }

  StateDict take() { return std::move(result_); }

 private:
  void charge(uint64_t work) {
    if (work > work_left_) {
      source_.fail("nested containers without cycles", "cyclic or excessively repeated references");
    }
    work_left_ -= work;
  }

  bool may_contain_tensors(const Value& value) {
    charge(1);
    return std::holds_alternative<at::Tensor>(value) || std::holds_alternative<Dictionary*>(value) ||
           std::holds_alternative<Sequence*>(value);
  }

  static std::string joined(const std::string& path, const std::string& key) {
    return path.empty() ? key : path + "." + key;
  }

  std::string key_text(const Value& key) const {
    if (const auto* const text = std::get_if<std::string_view>(&key)) return std::string(*text);
    if (const auto* const number = std::get_if<int64_t>(&key)) return std::to_string(*number);
    source_.fail("text or integers as the keys of dictionaries", type_name(key));
  }

  void insert(const std::string& name, const at::Tensor& tensor) {
    charge(16 + name.size());
    if (result_.tensors.contains(name)) source_.fail("unique names", "a duplicate " + printable(name));
    result_.tensors.insert(name, tensor);
  }

  const Source& source_;
  uint64_t work_left_;
  StateDict result_;
};

}  // namespace

StateDict flatten(const Source& source, const Value& value, uint64_t max_work) {
  Flattener flattener(source, max_work);
  flattener.add(value, "", 0);
  return flattener.take();
}

}  // namespace attend::checkpoint
