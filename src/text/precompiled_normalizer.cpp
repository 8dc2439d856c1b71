// The normalizer of SentencePiece, with the rules by which Python's `tokenizers` applies its table.
#include <c10/util/Exception.h>
#include <unicode/ubrk.h>
#include <unicode/utext.h>

#include <cstring>
#include <optional>

#include "text/normalizer.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

/// The table of replacements: a trie in a double array (darts-clone), and a text of replacements, each ended
/// by a zero byte.
class CharacterTable {
 public:
  /// Returns nullopt if the sizes of the table do not fit its length.
  static std::optional<CharacterTable> of(std::string_view table) {
    uint32_t size = 0;
    if (table.size() < sizeof size) return {};
    std::memcpy(&size, table.data(), sizeof size);
    table.remove_prefix(sizeof size);
    if (size == 0 || size % sizeof(uint32_t) != 0 || size > table.size()) return {};
    CharacterTable characters;
    characters.units_.resize(size / sizeof(uint32_t));
    std::memcpy(characters.units_.data(), table.data(), size);
    characters.replacements_ = table.substr(size);
    if (!is_utf8(characters.replacements_)) return {};
    return characters;
  }

  /// Returns the replacement of the shortest prefix of a text that has one.
  std::optional<std::string_view> find(std::string_view text) const {
    size_t at = offset(units_[0]);
    for (const char byte : text) {
      const auto label = static_cast<unsigned char>(byte);
      at ^= label;
      if (label == 0 || at >= units_.size() || (units_[at] & kLabel) != label) return {};
      const bool has_leaf = (units_[at] >> 8U & 1U) != 0;
      at ^= offset(units_[at]);
      if (!has_leaf) continue;
      if (at >= units_.size()) return {};
      const size_t begin = units_[at] & ~kLeaf;
      if (begin > replacements_.size()) return {};
      const auto rest = std::string_view(replacements_).substr(begin);
      return rest.substr(0, rest.find('\0'));
    }
    return {};
  }

 private:
  static constexpr uint32_t kLeaf = 1U << 31U, kLabel = kLeaf | 0xFFU;

  static size_t offset(uint32_t unit) {
    return static_cast<size_t>(unit >> 10U) << ((unit & (1U << 9U)) >> 6U);
  }

  std::vector<uint32_t> units_;
  std::string replacements_;
};

/// Calls `use` for each user-perceived character (extended grapheme cluster) of a text.
template <typename F>
void for_each_cluster(std::string_view text, const F& use) {
  UErrorCode error = U_ZERO_ERROR;
  UText* const source = utext_openUTF8(nullptr, text.data(), static_cast<int64_t>(text.size()), &error);
  UBreakIterator* const breaks = ubrk_open(UBRK_CHARACTER, "", nullptr, 0, &error);
  ubrk_setUText(breaks, source, &error);
  TORCH_CHECK(U_SUCCESS(error), "ICU has no rules for characters: ", u_errorName(error));
  size_t begin = 0;
  for (int32_t end = ubrk_next(breaks); end != UBRK_DONE; end = ubrk_next(breaks)) {
    use(text.substr(begin, static_cast<size_t>(end) - begin));
    begin = static_cast<size_t>(end);
  }
  ubrk_close(breaks);
  utext_close(source);
}

class PrecompiledNormalizer final : public Normalizer {
 public:
  explicit PrecompiledNormalizer(CharacterTable table) : table_(std::move(table)) {}

  void normalize(AlignedText& text) const override {
    constexpr size_t kMaxCluster = 5;  // in bytes; longer clusters are looked up one code point at a time
    std::vector<Change> changes;
    changes.reserve(text.text.size());
    bool is_same = true;
    for_each_cluster(text.text, [&](std::string_view cluster) {
      if (cluster.size() <= kMaxCluster) {
        if (const auto replacement = table_.find(cluster)) {
          is_same = false;
          return replace(cluster, *replacement, changes);
        }
      }
      for_each_code_point(cluster, [&](char32_t c, size_t begin, size_t end) {
        const auto part = cluster.substr(begin, end - begin);
        const auto replacement = table_.find(part);
        if (!replacement) return changes.push_back({c, 0});
        is_same = false;
        replace(part, *replacement, changes);
      });
    });
    if (!is_same) text.transform(changes);
  }

 private:
  /// Appends the code points of a replacement. The last of them are inserted where it is longer, and the last
  /// one stands for the rest where it is shorter.
  static void replace(std::string_view part, std::string_view replacement, std::vector<Change>& changes) {
    const auto inserted = unchanged(replacement);
    const auto difference =
        static_cast<int32_t>(inserted.size()) - static_cast<int32_t>(num_code_points(part));
    changes.insert(changes.end(), inserted.begin(), inserted.end());
    for (int32_t n = 0; n < difference; ++n) changes[changes.size() - 1 - static_cast<size_t>(n)].change = 1;
    if (difference < 0 && !changes.empty()) changes.back().change += difference;
  }

  CharacterTable table_;
};

}  // namespace

std::unique_ptr<Normalizer> make_precompiled_normalizer(std::string_view table) {
  auto characters = CharacterTable::of(table);
  if (!characters) return nullptr;
  return std::make_unique<PrecompiledNormalizer>(std::move(*characters));
}

}  // namespace attend::text
