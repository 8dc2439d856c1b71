#include "text/post_processor.h"

#include <c10/util/StringUtil.h>

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace attend::text {
namespace {

using Texts = std::vector<TextTokens>;

/// Moves a position in a text by code points, forwards or backwards, without passing `limit`.
uint32_t moved(std::string_view text, uint32_t at, uint32_t count, uint32_t limit) {
  for (; count > 0 && at != limit; --count) {
    if (at < limit) {
      size_t next = at;
      static_cast<void>(next_code_point(text, next));
      at = static_cast<uint32_t>(next);
    } else {
      at -= static_cast<uint32_t>(size_in_utf8(last_code_point(text.substr(0, at))));
    }
  }
  return at;
}

/// Takes white space out of the ranges of the tokens. The space that a prefix added is not in the text, and
/// so nothing is taken out of the first token for it.
void trim(TextTokens& text, bool add_prefix_space) {
  for (size_t n = 0; n < text.tokens.size(); ++n) {
    auto& [id, type_id, source, is_special, num_leading, num_trailing] = text.tokens[n];
    const bool has_prefix = (n == 0 || source.begin == 0) && add_prefix_space && num_leading == 1;
    if (!has_prefix) source.begin = moved(text.text, source.begin, num_leading, source.end);
    const auto before = text.text.substr(0, std::min<size_t>(source.end, size_t{4} * num_trailing));
    if (num_code_points(before) >= num_trailing) {
      source.end = moved(text.text, source.end, num_trailing, source.begin);
    }
  }
}

class TrimmingProcessor final : public PostProcessor {
 public:
  TrimmingProcessor(bool trim_offsets, bool add_prefix_space)
      : trim_offsets_(trim_offsets), add_prefix_space_(add_prefix_space) {}

  Texts process(Texts texts, bool /*add_special_tokens*/) const override {
    if (trim_offsets_) {
      for (auto& text : texts) trim(text, add_prefix_space_);
    }
    return texts;
  }
  size_t num_added(bool /*is_pair*/) const override { return 0; }
  bool has_template() const override { return false; }

 private:
  bool trim_offsets_, add_prefix_space_;
};

class TemplateProcessor final : public PostProcessor {
 public:
  TemplateProcessor(Template single, Template pair, bool keeps_types_alone)
      : single_(std::move(single)), pair_(std::move(pair)), keeps_types_alone_(keeps_types_alone) {}

  Texts process(Texts texts, bool add_special_tokens) const override {
    if (!add_special_tokens && keeps_types_alone_) return texts;
    Texts parts;
    for (const auto& part : texts.size() == 1 ? single_ : pair_) {
      if (part.text >= 0) {
        auto& text = parts.emplace_back(texts[static_cast<size_t>(part.text)]);
        for (auto& token : text.tokens) token.type_id = part.type_id;
      } else if (add_special_tokens) {
        auto& added = parts.emplace_back();
        for (const int64_t id : part.ids) added.tokens.push_back({id, part.type_id, {}, true});
      }
    }
    return parts;
  }

  size_t num_added(bool is_pair) const override {
    size_t count = 0;
    for (const auto& part : is_pair ? pair_ : single_) count += part.ids.size();
    return count;
  }
  bool has_template() const override { return true; }

 private:
  Template single_, pair_;
  bool keeps_types_alone_;  ///< whether type ids remain where no special tokens are added
};

class SequenceProcessor final : public PostProcessor {
 public:
  explicit SequenceProcessor(std::vector<std::unique_ptr<PostProcessor>> steps) : steps_(std::move(steps)) {}

  Texts process(Texts texts, bool add_special_tokens) const override {
    for (const auto& step : steps_) texts = step->process(std::move(texts), add_special_tokens);
    return texts;
  }
  size_t num_added(bool is_pair) const override {
    size_t count = 0;
    for (const auto& step : steps_) count += step->num_added(is_pair);
    return count;
  }
  bool has_template() const override {
    return std::ranges::any_of(steps_, [](const auto& step) { return step->has_template(); });
  }

 private:
  std::vector<std::unique_ptr<PostProcessor>> steps_;
};

/// Reads a template of the special tokens whose ids `special_tokens` has.
Template read_template(const JsonField& field, const JsonField& special_tokens) {
  Template parts;
  for (const auto& piece : field.elements()) {
    TemplatePart part;
    const auto text = piece.find("Sequence");
    const auto special = text ? text : piece.find("SpecialToken");
    if (!special) piece.fail("the field Sequence or SpecialToken", "neither");
    const auto name = special->at("id");
    part.type_id = special->at("type_id").index(kMaxTokenId);
    if (text) {
      if (name.string() != "A" && name.string() != "B") name.fail("A or B", name.string());
      part.text = name.string() == "A" ? 0 : 1;
    } else {
      const auto token = special_tokens.find(name.string());
      if (!token) name.fail("one of the special_tokens", c10::str("\"", name.string(), "\""));
      for (const auto& id : token->at("ids").elements()) part.ids.push_back(id.index(kMaxTokenId));
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

std::unique_ptr<PostProcessor> read_template_processor(const JsonField& field) {
  const auto special_tokens = field.at("special_tokens"), single = field.at("single");
  auto single_parts = read_template(single, special_tokens);
  const bool needs_pair = std::ranges::any_of(single_parts, [](const auto& part) { return part.text == 1; });
  if (needs_pair) single.fail("a template of the text A", "one of B");
  return make_template(std::move(single_parts), read_template(field.at("pair"), special_tokens));
}

/// Reads a special token: an array of its text and its id.
int64_t read_special_token(const JsonField& field) {
  const auto elements = field.elements();
  if (elements.size() != 2)
    field.fail("an array of a token and its id", c10::str(elements.size(), " elements"));
  static_cast<void>(elements[0].string());
  return elements[1].index(kMaxTokenId);
}

/// Reads BertProcessing: [CLS] A [SEP] B [SEP].
std::unique_ptr<PostProcessor> read_bert_processor(const JsonField& field) {
  const TemplatePart cls{-1, {read_special_token(field.at("cls"))}}, first{0};
  TemplatePart sep{-1, {read_special_token(field.at("sep"))}}, second{1, {}, 1};
  const Template single = {cls, first, sep};
  auto pair = single;
  sep.type_id = 1;
  pair.insert(pair.end(), {second, sep});
  return std::make_unique<TemplateProcessor>(single, std::move(pair), /*keeps_types_alone=*/true);
}

/// Reads RobertaProcessing: <s> A </s></s> B </s>, all of the type 0.
std::unique_ptr<PostProcessor> read_roberta_processor(const JsonField& field) {
  const TemplatePart cls{-1, {read_special_token(field.at("cls"))}}, first{0}, second{1};
  const TemplatePart sep{-1, {read_special_token(field.at("sep"))}};
  std::vector<std::unique_ptr<PostProcessor>> steps;
  steps.push_back(std::make_unique<TrimmingProcessor>(field.at("trim_offsets").boolean(),
                                                      field.at("add_prefix_space").boolean()));
  steps.push_back(make_template({cls, first, sep}, {cls, first, sep, sep, second, sep}));
  return std::make_unique<SequenceProcessor>(std::move(steps));
}

std::unique_ptr<PostProcessor> read_processor_sequence(const JsonField& field) {
  std::vector<std::unique_ptr<PostProcessor>> steps;
  bool has_template = false;
  for (const auto& step : field.at("processors").elements()) {
    steps.push_back(read_post_processor(step));
    if (has_template && steps.back()->has_template()) step.fail("one template", "a second one");
    has_template = has_template || steps.back()->has_template();
  }
  return std::make_unique<SequenceProcessor>(std::move(steps));
}

}  // namespace

std::unique_ptr<PostProcessor> make_template(Template single, Template pair) {
  return std::make_unique<TemplateProcessor>(std::move(single), std::move(pair), /*keeps_types_alone=*/false);
}

std::unique_ptr<PostProcessor> read_post_processor(const JsonField& field) {
  const auto& type = field.type();
  if (type == "Sequence") return read_processor_sequence(field);
  if (type == "TemplateProcessing") return read_template_processor(field);
  if (type == "BertProcessing") return read_bert_processor(field);
  if (type == "RobertaProcessing") return read_roberta_processor(field);
  if (type == "ByteLevel") {
    return std::make_unique<TrimmingProcessor>(field.boolean_or("trim_offsets", true),
                                               field.boolean_or("add_prefix_space", true));
  }
  field.fail_type("BertProcessing, ByteLevel, RobertaProcessing, Sequence or TemplateProcessing");
}

}  // namespace attend::text
