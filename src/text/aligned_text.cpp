#include "text/aligned_text.h"

#include <utility>

#include "text/unicode.h"

namespace attend::text {

AlignedText AlignedText::of(std::string_view source, uint32_t first) {
  AlignedText aligned{std::string(source), {}, first};
  aligned.origins.reserve(source.size());
  for_each_code_point(source, [&](char32_t, size_t begin, size_t end) {
    const SourceRange origin{first + static_cast<uint32_t>(begin), first + static_cast<uint32_t>(end)};
    aligned.origins.insert(aligned.origins.end(), end - begin, origin);
  });
  return aligned;
}

void AlignedText::append(std::string_view bytes, SourceRange origin) {
  text += bytes;
  origins.insert(origins.end(), bytes.size(), origin);
}

void AlignedText::append(const AlignedText& other, size_t begin, size_t end) {
  text.append(other.text, begin, end - begin);
  const auto at = [&](size_t index) { return other.origins.begin() + static_cast<std::ptrdiff_t>(index); };
  origins.insert(origins.end(), at(begin), at(end));
}

AlignedText AlignedText::slice(size_t begin, size_t end) const {
  AlignedText part;
  part.first = begin < end ? origins[begin].begin : first;
  part.append(*this, begin, end);
  return part;
}

void AlignedText::transform(const std::vector<Change>& changes, size_t num_removed) {
  AlignedText rewritten;
  rewritten.first = first;
  rewritten.text.reserve(text.size());
  rewritten.origins.reserve(text.size());
  size_t at = 0;  // the end of what has been replaced so far
  const auto skip = [&](size_t count) {
    for (; count > 0 && at < text.size(); --count) static_cast<void>(next_code_point(text, at));
  };
  skip(num_removed);
  for (const auto& [c, change] : changes) {
    SourceRange origin{first, first};
    if (change > 0 || at >= text.size()) {
      if (at > 0) origin = origins[at - 1];
    } else {
      origin = origins[at];
    }
    if (change <= 0) skip(1 + static_cast<size_t>(-change));
    text::append(rewritten.text, c);
    rewritten.origins.resize(rewritten.text.size(), origin);
  }
  *this = std::move(rewritten);
}

void AlignedText::prepend(std::string_view inserted) {
  if (text.empty()) return;
  origins.insert(origins.begin(), inserted.size(), origins.front());
  text.insert(0, inserted);
}

std::vector<Change> unchanged(std::string_view text) {
  std::vector<Change> changes;
  changes.reserve(text.size());
  for_each_code_point(text, [&](char32_t c, size_t, size_t) { changes.push_back({c, 0}); });
  return changes;
}

}  // namespace attend::text
