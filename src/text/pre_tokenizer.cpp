#include "text/pre_tokenizer.h"

#include <functional>
#include <utility>

#include "text/byte_level.h"
#include "text/metaspace.h"
#include "text/unicode.h"

namespace attend::text {
namespace {

/// A pre-tokenizer that splits each word by a function of its text.
class Splitter final : public PreTokenizer {
 public:
  using Function = std::function<std::vector<ByteRange>(std::string_view)>;
  explicit Splitter(Function function) : function_(std::move(function)) {}
  void split(Words& words) const override { words.split(function_); }

 private:
  Function function_;
};

std::unique_ptr<PreTokenizer> splitter(Splitter::Function function) {
  return std::make_unique<Splitter>(std::move(function));
}

/// Makes a splitter at each character of a class.
std::unique_ptr<PreTokenizer> split_at_class(bool (*is_in_class)(char32_t), SplitBehavior behavior) {
  return splitter([is_in_class, behavior](std::string_view text) {
    std::vector<ByteRange> matches;
    for_each_code_point(text, [&](char32_t c, size_t begin, size_t end) {
      if (is_in_class(c)) matches.push_back({begin, end});
    });
    return split_at(matches, text.size(), behavior);
  });
}

/// Makes a splitter into runs of word characters and runs of other characters, without white space: the
/// regular expression \w+|[^\w\s]+.
std::unique_ptr<PreTokenizer> split_words() {
  return splitter([](std::string_view text) {
    enum class Class { space, word, other };
    std::vector<ByteRange> ranges;
    auto last = Class::space;
    for_each_code_point(text, [&](char32_t c, size_t begin, size_t end) {
      const auto own = is_word_character(c) ? Class::word : is_space(c) ? Class::space : Class::other;
      if (own != Class::space && own == last) {
        ranges.back().end = end;
      } else if (own != Class::space) {
        ranges.push_back({begin, end});
      }
      last = own;
    });
    return ranges;
  });
}

class SequencePreTokenizer final : public PreTokenizer {
 public:
  explicit SequencePreTokenizer(std::vector<std::unique_ptr<PreTokenizer>> steps)
      : steps_(std::move(steps)) {}
  void split(Words& words) const override {
    for (const auto& step : steps_) step->split(words);
  }

 private:
  std::vector<std::unique_ptr<PreTokenizer>> steps_;
};

class ByteLevelPreTokenizer final : public PreTokenizer {
 public:
  ByteLevelPreTokenizer(bool add_prefix_space, std::shared_ptr<const Pattern> pattern)
      : add_prefix_space_(add_prefix_space), pattern_(std::move(pattern)) {}

  void split(Words& words) const override {
    if (add_prefix_space_) {
      words.rewrite([](AlignedText& text) {
        if (!text.text.starts_with(' ')) text.prepend(" ");
      });
    }
    if (pattern_ != nullptr) {
      words.split([&](std::string_view text) {
        return split_at(pattern_->find(text), text.size(), SplitBehavior::isolated);
      });
    }
    words.rewrite(to_byte_level);
  }

 private:
  bool add_prefix_space_;
  std::shared_ptr<const Pattern> pattern_;  ///< null if words are not split
};

class MetaspacePreTokenizer final : public PreTokenizer {
 public:
  explicit MetaspacePreTokenizer(Metaspace metaspace) : metaspace_(std::move(metaspace)) {}

  void split(Words& words) const override {
    words.rewrite([&](AlignedText& text) { replace_spaces(text); });
    if (!metaspace_.split) return;
    const auto mark = make_string_pattern(metaspace_.replacement);
    words.split([&](std::string_view text) {
      return split_at(mark->find(text), text.size(), SplitBehavior::merged_with_next);
    });
  }

 private:
  void replace_spaces(AlignedText& text) const {
    AlignedText replaced;
    replaced.first = text.first;
    for (size_t at = 0; at < text.text.size(); ++at) {
      const bool is_blank = text.text[at] == ' ';
      replaced.append(
          is_blank ? std::string_view(metaspace_.replacement) : std::string_view(text.text).substr(at, 1),
          text.origins[at]);
    }
    text = std::move(replaced);
    const bool is_prepended = metaspace_.prepend == Metaspace::Prepend::always ||
                              (metaspace_.prepend == Metaspace::Prepend::first && text.first == 0);
    if (is_prepended && !text.text.starts_with(metaspace_.replacement)) text.prepend(metaspace_.replacement);
  }

  Metaspace metaspace_;
};

std::unique_ptr<PreTokenizer> read_byte_level(const JsonField& field) {
  std::shared_ptr<const Pattern> pattern;
  if (field.boolean_or("use_regex", true)) {
    std::string error;
    pattern = make_regex(R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
                         field.path(), error);
  }
  return std::make_unique<ByteLevelPreTokenizer>(field.at("add_prefix_space").boolean(), std::move(pattern));
}

std::unique_ptr<PreTokenizer> read_split(const JsonField& field) {
  const auto behavior = read_split_behavior(field.at("behavior"));
  const bool invert = field.boolean_or("invert", false);
  return splitter([pattern = read_pattern(field.at("pattern")), behavior, invert](std::string_view text) {
    return split_at(pattern->find(text), text.size(), behavior, invert);
  });
}

std::unique_ptr<PreTokenizer> read_pre_tokenizer_sequence(const JsonField& field) {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  for (const auto& step : field.at("pretokenizers").elements()) steps.push_back(read_pre_tokenizer(step));
  return std::make_unique<SequencePreTokenizer>(std::move(steps));
}

}  // namespace

std::unique_ptr<PreTokenizer> make_bert_pre_tokenizer() {
  std::vector<std::unique_ptr<PreTokenizer>> steps;
  steps.push_back(split_at_class(is_space, SplitBehavior::removed));
  steps.push_back(split_at_class(is_punctuation, SplitBehavior::isolated));
  return std::make_unique<SequencePreTokenizer>(std::move(steps));
}

std::unique_ptr<PreTokenizer> read_pre_tokenizer(const JsonField& field) {
  const auto& type = field.type();
  if (type == "Sequence") return read_pre_tokenizer_sequence(field);
  if (type == "ByteLevel") return read_byte_level(field);
  if (type == "Split") return read_split(field);
  if (type == "Metaspace") return std::make_unique<MetaspacePreTokenizer>(read_metaspace(field));
  if (type == "BertPreTokenizer") return make_bert_pre_tokenizer();
  if (type == "Whitespace") return split_words();
  if (type == "WhitespaceSplit") return split_at_class(is_space, SplitBehavior::removed);
  if (type == "Punctuation") {
    const auto behavior = field.find("behavior");
    return split_at_class(is_punctuation,
                          behavior ? read_split_behavior(*behavior) : SplitBehavior::isolated);
  }
  if (type == "Digits") {
    const bool is_individual = field.at("individual_digits").boolean();
    return split_at_class(is_numeric, is_individual ? SplitBehavior::isolated : SplitBehavior::contiguous);
  }
  if (type == "CharDelimiterSplit") {
    const auto delimiter = make_string_pattern(utf8(field.at("delimiter").code_point()));
    return splitter([delimiter](std::string_view text) {
      return split_at(delimiter->find(text), text.size(), SplitBehavior::removed);
    });
  }
  field.fail_type(
      "BertPreTokenizer, ByteLevel, CharDelimiterSplit, Digits, Metaspace, Punctuation, Sequence, Split, "
      "Whitespace "
      "or WhitespaceSplit");
}

}  // namespace attend::text
