#include "checkpoint/legacy_file.h"

#include <c10/util/StringUtil.h>

#include <cstring>

#include "checkpoint/state_dict_unpickler.h"

namespace attend::checkpoint {
namespace {

/// Interprets a pickle without loading tensors, and collects the dtypes of the storages. The data follow the
/// pickles in the file, and their sizes depend on the dtypes.
class StoragePlan final : public StateDictUnpickler {
 public:
  using StateDictUnpickler::StateDictUnpickler;

  const std::unordered_map<std::string_view, at::ScalarType>& dtypes() const { return dtypes_; }

 private:
  Value load_persistent(const Sequence& id) override {
    constexpr auto kStorage = "a storage's persistent id";
    const auto type = argument<Global>(kStorage, id, 1);
    dtypes_.emplace(argument<std::string_view>(kStorage, id, 2), type.dtype);
    return Storage{{}, type.dtype, type.kind == Global::Kind::typed_storage};
  }
  Value rebuild(const Global&, const Sequence&) override { return at::Tensor(); }

  std::unordered_map<std::string_view, at::ScalarType> dtypes_;
};

std::string_view text_of(const Source& source) { return {source.data(), source.size()}; }

}  // namespace

bool LegacyFile::begins_like_one(const Source& source) {
  constexpr char kProto = '\x80';
  return source.size() > 0 && source.data()[0] == kProto;
}

LegacyFile::LegacyFile(const Source& source) : source_(source) {
  auto rest = text_of(source);
  check_header(rest);
  StoragePlan plan(source, rest);
  plan.run();
  pickle_ = rest.substr(0, rest.size() - plan.rest().size());

  StoragePlan key_plan(source, plan.rest());
  const auto value = key_plan.run();
  const auto* const keys = std::get_if<Sequence*>(&value);
  if (keys == nullptr) source.fail("the keys of the storages after the object", type_name(value));
  uint64_t offset = source.size() - key_plan.rest().size();
  for (const auto& item : (*keys)->items) {
    const auto* const key = std::get_if<std::string_view>(&item);
    const auto dtype = key == nullptr ? plan.dtypes().end() : plan.dtypes().find(*key);
    if (dtype == plan.dtypes().end())
      source.fail("keys of storages that the object refers to", "another key");
    uint64_t count = 0;
    if (source.size() - offset < sizeof(count))
      source.fail("the storage " + printable(*key), "a truncated file");
    std::memcpy(&count, source.data() + offset, sizeof(count));
    offset += sizeof(count);
    const auto size = c10::elementSize(dtype->second);
    if (count > (source.size() - offset) / size) {
      source.fail(c10::str("a storage ", printable(*key), " of ", count, " elements of ", size, " bytes"),
                  "a truncated file");
    }
    if (!storages_.emplace(*key, Position{offset, count}).second) {
      source.fail("unique keys of storages", "a duplicate " + printable(*key));
    }
    offset += count * size;
  }
}

/// Reads the pickles that precede the pickle of the object.
void LegacyFile::check_header(std::string_view& rest) const {
  constexpr std::string_view kMagic = "\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
  constexpr int64_t kVersion = 1001;
  const auto next = [&](const auto& check) {
    StoragePlan plan(source_, rest);
    check(plan.run());
    rest = plan.rest();
  };
  next([&](const Value& value) {
    const auto* const magic = std::get_if<BigInteger>(&value);
    if (magic == nullptr || magic->bytes != kMagic) {
      source_.fail("a file of torch.save", "a pickle without the magic number of one");
    }
  });
  next([&](const Value& value) {
    const auto* const version = std::get_if<int64_t>(&value);
    if (version == nullptr || *version != kVersion) {
      source_.fail("version 1001 of the format", version == nullptr ? type_name(value) : c10::str(*version));
    }
  });
  next([&](const Value& value) {
    const auto* const machine = std::get_if<Dictionary*>(&value);
    if (machine == nullptr) source_.fail("a dict of the machine's properties", type_name(value));
    for (const auto& [key, item] : (*machine)->items) {
      const auto* const name = std::get_if<std::string_view>(&key);
      const auto* const is_set = std::get_if<bool>(&item);
      if (name != nullptr && *name == "little_endian" && is_set != nullptr && !*is_set) {
        source_.fail("little-endian storages", "those of a big-endian machine");
      }
    }
  });
}

at::Tensor LegacyFile::storage(std::string_view key, uint64_t count, at::ScalarType dtype) const {
  const auto found = storages_.find(std::string(key));
  if (found == storages_.end()) source_.fail("the storage " + printable(key) + " in the file", "none");
  if (found->second.count != count) {
    source_.fail(c10::str("a storage ", printable(key), " of ", count, " elements"),
                 c10::str(found->second.count, " elements"));
  }
  return tensor_at(source_, found->second.offset, count, dtype);
}

}  // namespace attend::checkpoint
