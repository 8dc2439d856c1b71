#pragma once

#include <attend/export.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Tokenizers: what turns text into the ids that a model reads, and back.
namespace attend::text {

/// A half-open range.
struct Span {
  int64_t begin = 0;  ///< the first index
  int64_t end = 0;    ///< the index after the last

  /// Whether two ranges are the same.
  bool operator==(const Span&) const = default;
};

/// The tokens of one or two texts, as inputs of a model. The vectors have one element per token.
struct Encoding {
  std::vector<int64_t> ids;             ///< indices into the vocabulary
  std::vector<int64_t> token_type_ids;  ///< which text a token belongs to, as the tokenizer's model counts
  std::vector<int64_t> attention_mask;  ///< 1 for tokens, 0 for padding
  std::vector<int64_t>
      special_tokens_mask;  ///< 1 for special tokens that were added and for padding, otherwise 0
  /// The bytes of the text that a token stands for; {0, 0} for tokens that were added. `code_point_offsets`
  /// counts in code points instead, as Python does.
  std::vector<Span> offsets;
};

/// The end of a text at which tokens are removed or added.
enum class Side {
  left,   ///< the first tokens
  right,  ///< the last tokens
};

/// Which of two texts is truncated.
enum class TruncationStrategy {
  longest_first,  ///< the longer one to the length of the shorter, and then both
  only_first,     ///< the first
  only_second,    ///< the second
};

/// How `Tokenizer::encode` limits the number of tokens.
struct Truncation {
  int64_t max_length = 512;  ///< the maximum number of tokens, with those that are added
  TruncationStrategy strategy = TruncationStrategy::longest_first;  ///< which of two texts is truncated
  Side side = Side::right;                                          ///< where tokens are removed
};

/// How `Tokenizer::encode` and `encode_batch` pad.
struct Padding {
  int64_t pad_id = 0;       ///< the id of the padding token
  int64_t pad_type_id = 0;  ///< the token type of padding
  Side side = Side::right;  ///< where padding is added
  /// The length to which each text is padded. Default: that of the longest text of a batch.
  std::optional<int64_t> length = std::nullopt;
  /// The number of which the length becomes a multiple; 1 leaves it as it is.
  int64_t multiple_of = 1;
};

/// A tokenizer as the file tokenizer.json of Python's `tokenizers` describes it: a normalizer, a
/// pre-tokenizer, a model (BPE, Sennrich 2016; Unigram, Kudo 2018; WordPiece, Wu 2016; or whole words), a
/// post-processor, a decoder and added tokens. The ids, offsets and decoded texts are those of `tokenizers`.
///
/// A text is UTF-8. Each maximal sequence of bytes that is not UTF-8 counts as U+FFFD, as after Python's
/// `bytes.decode(errors="replace")`; its offsets are those of the bytes. The time is linear in the length of
/// a text. A tokenizer is a value that can be copied cheaply, and can be used by several threads at once.
class ATTEND_API Tokenizer {
 public:
  /// Loads a tokenizer from a file in the format of tokenizer.json, or from a folder with this file.
  ///
  /// Errors (c10::Error): a file that cannot be read, and a field that is missing, of another type or
  /// contradicts others, or that asks for what is not supported (such as BPE dropout); the message names the
  /// file and the field.
  static Tokenizer load(const std::string& path);

  /// Makes a tokenizer from the text of a tokenizer.json. `name` is its name in errors.
  ///
  /// Errors (c10::Error): as `load`.
  static Tokenizer parse(std::string_view json, const std::string& name = "tokenizer.json");

  /// Returns the tokens of a text. With `add_special_tokens`, the post-processor adds the special tokens that
  /// the model expects, such as [CLS]. Added and special tokens that occur in the text become the token of
  /// that name. The result is truncated and padded as `truncation` and `padding` say.
  ///
  /// Errors (c10::Error): a text of 2 GiB or more, a maximum length below the number of added tokens, and a
  /// regular expression of the tokenizer that takes a time or memory that is not proportional to the text.
  Encoding encode(std::string_view text, bool add_special_tokens = true) const;

  /// Returns the tokens of two texts.
  ///
  /// Errors (c10::Error): as `encode`.
  Encoding encode_pair(std::string_view first, std::string_view second, bool add_special_tokens = true) const;

  /// Returns the tokens of several texts, padded to the same length if there is a `padding`.
  ///
  /// Errors (c10::Error): as `encode`.
  std::vector<Encoding> encode_batch(const std::vector<std::string>& texts,
                                     bool add_special_tokens = true) const;

  /// Returns the text of tokens. Ids without a token are left out, and so are special tokens with
  /// `skip_special_tokens`.
  std::string decode(const std::vector<int64_t>& ids, bool skip_special_tokens = true) const;

  /// Returns the id of a token; nullopt if there is none.
  std::optional<int64_t> token_to_id(std::string_view token) const;

  /// Returns the token with an id; nullopt if there is none.
  std::optional<std::string> id_to_token(int64_t id) const;

  /// Whether a token is special: an added token that `decode` leaves out.
  bool is_special(int64_t id) const;

  /// Returns the number of different tokens, including added tokens.
  int64_t vocab_size() const;

  /// How texts are truncated; nullopt if they are not. `load` sets it as the file says.
  const std::optional<Truncation>& truncation() const { return truncation_; }
  /// Sets how texts are truncated.
  ///
  /// Errors (c10::Error): a negative length.
  Tokenizer& truncation(std::optional<Truncation> truncation);

  /// How texts are padded; nullopt if they are not. `load` sets it as the file says.
  const std::optional<Padding>& padding() const { return padding_; }
  /// Sets how texts are padded.
  ///
  /// Errors (c10::Error): a negative length, or a multiple below 1.
  Tokenizer& padding(std::optional<Padding> padding);

 private:
  struct Parts;
  explicit Tokenizer(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

  Encoding encode_texts(const std::vector<std::string_view>& texts, bool add_special_tokens) const;
  void pad(Encoding& encoding, int64_t length) const;

  std::shared_ptr<const Parts> parts_;
  std::optional<Truncation> truncation_;
  std::optional<Padding> padding_;
};

/// Returns offsets in bytes as offsets in code points of the text, as Python counts them. The time is linear
/// in the length of the text.
ATTEND_API std::vector<Span> code_point_offsets(std::string_view text, const std::vector<Span>& offsets);

}  // namespace attend::text
