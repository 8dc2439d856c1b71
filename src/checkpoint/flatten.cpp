#include "checkpoint/flatten.h"

#include <c10/util/StringUtil.h>

#include <unordered_map>
#include <unordered_set>

#include "checkpoint/key_text.h"

namespace attend::checkpoint {
namespace {

/// Returns the address of a container; nullptr for other values.
const void* container_in(const Value& value) {
  if (const auto* const dictionary = std::get_if<Dictionary*>(&value)) return *dictionary;
  if (const auto* const sequence = std::get_if<Sequence*>(&value)) return *sequence;
  return nullptr;
}

size_t size_of(const Value& container) {
  const auto* const dictionary = std::get_if<Dictionary*>(&container);
  return dictionary != nullptr ? (*dictionary)->items.size() : std::get<Sequence*>(container)->items.size();
}

const Value& item_of(const Value& container, size_t index) {
  const auto* const dictionary = std::get_if<Dictionary*>(&container);
  return dictionary != nullptr ? (*dictionary)->items[index].second
                               : std::get<Sequence*>(container)->items[index];
}

/// Returns the containers from which a tensor can be reached. The other containers are skipped, since they
/// may be cyclic or occur many times.
std::unordered_set<const void*> containers_of_tensors(const Value& root) {
  std::unordered_map<const void*, std::vector<const void*>> parents = {{container_in(root), {}}};
  std::vector<Value> open = {root};
  std::vector<const void*> reached;
  while (!open.empty()) {
    const auto container = open.back();
    open.pop_back();
    bool has_tensor = false;
    for (size_t n = 0; n < size_of(container); ++n) {
      const auto& item = item_of(container, n);
      has_tensor = has_tensor || std::holds_alternative<at::Tensor>(item);
      const void* const inner = container_in(item);
      if (inner == nullptr || size_of(item) == 0) continue;
      const auto [found, is_new] = parents.try_emplace(inner);
      found->second.push_back(container_in(container));
      if (is_new) open.push_back(item);
    }
    if (has_tensor) reached.push_back(container_in(container));
  }
  std::unordered_set<const void*> result(reached.begin(), reached.end());
  while (!reached.empty()) {
    const void* const inner = reached.back();
    reached.pop_back();
    for (const void* const outer : parents[inner]) {
      if (result.insert(outer).second) reached.push_back(outer);
    }
  }
  return result;
}

class Flattener {
 public:
  Flattener(const Source& source, const Value& root)
      : source_(source), limit_(kAlways + kPerByte * source.size()), useful_(containers_of_tensors(root)) {
    if (useful_.contains(container_in(root))) enter(root);
  }

  StateDict run() {
    while (!open_.empty()) {
      auto& [container, index, path_size] = open_.back();
      if (index == size_of(container)) {
        path_.resize(path_size);
        on_path_.erase(container_in(container));
        open_.pop_back();
      } else {
        visit(container, index++);
      }
    }
    return std::move(result_);
  }

 private:
  static constexpr uint64_t kAlways = uint64_t{1} << 20U, kPerByte = 128;

  /// A container on the current path, the index of its next item, and the length of the path to the
  /// container.
  struct Frame {
    Value container;
    size_t index, path_size;
  };

  void visit(const Value container, size_t index) {
    // Each item is charged like this many bytes, for the time that it takes.
    constexpr uint64_t kBytesPerItem = 16;
    charge(kBytesPerItem);
    const auto& item = item_of(container, index);
    const bool is_tensor = std::holds_alternative<at::Tensor>(item);
    if (!is_tensor && !useful_.contains(container_in(item))) return;
    const size_t before = path_.size();
    if (!path_.empty()) path_ += '.';
    append_key(container, index);
    charge(path_.size() - before);
    if (is_tensor) {
      insert(std::get<at::Tensor>(item));
      path_.resize(before);
    } else {
      enter(item);
      open_.back().path_size = before;
    }
  }

  void append_key(const Value& container, size_t index) {
    if (const auto* const dictionary = std::get_if<Dictionary*>(&container)) {
      path_ += key_text(source_, (*dictionary)->items[index].first, limit_ - work_);
    } else {
      path_ += std::to_string(index);
    }
  }

  void enter(const Value& container) {
    if (!on_path_.insert(container_in(container)).second) {
      source_.fail("containers of tensors without cycles", "one that contains itself");
    }
    open_.push_back({container, 0, path_.size()});
  }

  void insert(const at::Tensor& tensor) {
    constexpr uint64_t kBytesPerTensor = 128;  // the size of an entry of a StateDict, without its name
    charge(kBytesPerTensor + path_.size());
    if (result_.tensors.contains(path_)) source_.fail("unique names", "a duplicate " + printable(path_));
    result_.tensors.insert(path_, tensor);
  }

  void charge(uint64_t work) {
    work_ += work;
    if (work_ > limit_) {
      source_.fail(
          c10::str("names and tensors of at most ", limit_, " bytes, 128 times the size of the file"),
          "more, by containers that are repeated");
    }
  }

  const Source& source_;
  uint64_t limit_, work_ = 0;
  std::unordered_set<const void*> useful_, on_path_;
  std::vector<Frame> open_;
  std::string path_;
  StateDict result_;
};

}  // namespace

StateDict flatten(const Source& source, const Value& value) { return Flattener(source, value).run(); }

}  // namespace attend::checkpoint
