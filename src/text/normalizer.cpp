#include "text/normalizer.h"

#include <functional>
#include <utility>

#include "text/base64.h"
#include "text/byte_level.h"
#include "text/pattern.h"
#include "text/unicode.h"
#include "text/unicode_forms.h"

namespace attend::text {
namespace {

/// A normalizer that is a function.
class SimpleNormalizer final : public Normalizer {
 public:
  using Function = std::function<void(AlignedText&)>;
  explicit SimpleNormalizer(Function function) : function_(std::move(function)) {}
  void normalize(AlignedText& text) const override { function_(text); }

 private:
  Function function_;
};

std::unique_ptr<Normalizer> simple(SimpleNormalizer::Function function) {
  return std::make_unique<SimpleNormalizer>(std::move(function));
}

void to_lower_case(AlignedText& text) {
  std::vector<Change> changes;
  changes.reserve(text.text.size());
  for_each_code_point(text.text, [&](char32_t c, size_t, size_t) {
    int32_t change = 0;
    for (const char32_t lower : lower_case(c)) changes.push_back({lower, std::exchange(change, 1)});
  });
  text.transform(changes);
}

void strip_space(AlignedText& text, bool left, bool right) {
  auto changes = unchanged(text.text);
  const auto is_kept = [](const Change& change) { return !is_space(change.c); };
  size_t num_left = 0, num_right = 0;
  while (left && num_left < changes.size() && !is_kept(changes[num_left])) ++num_left;
  while (right && num_right < changes.size() && !is_kept(changes[changes.size() - 1 - num_right]))
    ++num_right;
  if (num_left == changes.size()) {
    changes.clear();
  } else {
    changes.resize(changes.size() - num_right);
    changes.erase(changes.begin(), changes.begin() + static_cast<std::ptrdiff_t>(num_left));
    changes.back().change = -static_cast<int32_t>(num_right);
  }
  if (num_left + num_right > 0) text.transform(changes, num_left);
}

/// Normalizes as the rule `nmt` of SentencePiece: removes some control characters and replaces white space.
void to_nmt(AlignedText& text) {
  text.filter([](char32_t c) {
    const bool is_removed = (c >= 0x01 && c <= 0x08) || c == 0x0B || (c >= 0x0E && c <= 0x1F) || c == 0x7F ||
                            c == 0x8F || c == 0x9F;
    return !is_removed;
  });
  auto changes = unchanged(text.text);
  for (auto& [c, change] : changes) {
    const bool is_blank = c == 0x09 || c == 0x0A || c == 0x0C || c == 0x0D || c == 0x1680 ||
                          (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                          c == 0xFEFF || c == kReplacementCharacter;
    if (is_blank) c = ' ';
  }
  text.transform(changes);
}

class SequenceNormalizer final : public Normalizer {
 public:
  explicit SequenceNormalizer(std::vector<std::unique_ptr<Normalizer>> steps) : steps_(std::move(steps)) {}
  void normalize(AlignedText& text) const override {
    for (const auto& step : steps_) step->normalize(text);
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> steps_;
};

class BertNormalizer final : public Normalizer {
 public:
  explicit BertNormalizer(const BertNormalization& steps) : steps_(steps) {}

  void normalize(AlignedText& text) const override {
    if (steps_.clean_text) clean(text);
    if (steps_.isolate_chinese) isolate_chinese(text);
    if (steps_.strip_accents) {
      to_unicode_form(text, UnicodeForm::nfd);
      text.filter([](char32_t c) { return !is_nonspacing_mark(c); });
    }
    if (steps_.lower_case) to_lower_case(text);
  }

 private:
  static void clean(AlignedText& text) {
    const auto is_blank = [](char32_t c) { return c == '\t' || c == '\n' || c == '\r' || is_space(c); };
    text.filter([&](char32_t c) {
      const bool is_line = c == '\t' || c == '\n' || c == '\r';
      return c != 0 && c != kReplacementCharacter && (is_line || !is_control(c));
    });
    auto changes = unchanged(text.text);
    for (auto& [c, change] : changes) c = is_blank(c) ? ' ' : c;
    text.transform(changes);
  }

  static void isolate_chinese(AlignedText& text) {
    std::vector<Change> changes;
    for_each_code_point(text.text, [&](char32_t c, size_t, size_t) {
      if (!is_chinese(c)) return changes.push_back({c, 0});
      changes.insert(changes.end(), {{' ', 0}, {c, 1}, {' ', 1}});
    });
    text.transform(changes);
  }

  BertNormalization steps_;
};

std::unique_ptr<Normalizer> read_sequence(const JsonField& field) {
  std::vector<std::unique_ptr<Normalizer>> steps;
  for (const auto& step : field.at("normalizers").elements()) steps.push_back(read_normalizer(step));
  return std::make_unique<SequenceNormalizer>(std::move(steps));
}

std::unique_ptr<Normalizer> read_bert(const JsonField& field) {
  const bool lower_case = field.boolean_or("lowercase", true);
  return make_bert_normalizer({field.boolean_or("clean_text", true),
                               field.boolean_or("handle_chinese_chars", true),
                               field.boolean_or("strip_accents", lower_case), lower_case});
}

std::unique_ptr<Normalizer> read_replace(const JsonField& field) {
  const auto pattern = read_pattern(field.at("pattern"));
  return simple([pattern, content = field.at("content").string()](AlignedText& text) {
    AlignedText replaced;
    replaced.first = text.first;
    size_t end = 0;
    for (const auto& match : pattern->find(text.text)) {
      replaced.append(text, end, match.begin);
      const SourceRange first{text.first, text.first};
      replaced.append(content, match.end == 0 ? first : text.origins[match.end - 1]);
      end = match.end;
    }
    replaced.append(text, end, text.text.size());
    text = std::move(replaced);
  });
}

std::unique_ptr<Normalizer> read_precompiled(const JsonField& field) {
  const auto table_field = field.at("precompiled_charsmap");
  const auto table = decode_base64(table_field.string());
  auto normalizer = table ? make_precompiled_normalizer(*table) : nullptr;
  if (normalizer == nullptr) table_field.fail("a table of SentencePiece in base 64", "another string");
  return normalizer;
}

}  // namespace

std::unique_ptr<Normalizer> make_bert_normalizer(const BertNormalization& steps) {
  return std::make_unique<BertNormalizer>(steps);
}

std::unique_ptr<Normalizer> read_normalizer(const JsonField& field) {
  const auto& type = field.type();
  const auto form = [](UnicodeForm to) {
    return simple([to](AlignedText& text) { to_unicode_form(text, to); });
  };
  if (type == "Sequence") return read_sequence(field);
  if (type == "BertNormalizer") return read_bert(field);
  if (type == "NFC") return form(UnicodeForm::nfc);
  if (type == "NFD") return form(UnicodeForm::nfd);
  if (type == "NFKC") return form(UnicodeForm::nfkc);
  if (type == "NFKD") return form(UnicodeForm::nfkd);
  if (type == "Lowercase") return simple(to_lower_case);
  if (type == "Nmt") return simple(to_nmt);
  if (type == "StripAccents") {
    return simple([](AlignedText& text) { text.filter([](char32_t c) { return !is_mark(c); }); });
  }
  if (type == "Strip") {
    const bool left = field.at("strip_left").boolean(), right = field.at("strip_right").boolean();
    return simple([left, right](AlignedText& text) { strip_space(text, left, right); });
  }
  if (type == "Prepend") {
    return simple([prefix = field.at("prepend").string()](AlignedText& text) { text.prepend(prefix); });
  }
  if (type == "Replace") return read_replace(field);
  if (type == "Precompiled") return read_precompiled(field);
  if (type == "ByteLevel") return simple(to_byte_level);
  field.fail_type(
      "BertNormalizer, ByteLevel, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled, Prepend, Replace, "
      "Sequence, "
      "Strip or StripAccents");
}

}  // namespace attend::text
