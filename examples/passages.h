#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// A text file, and its state when it was read.
struct TextFile {
  std::string path;  ///< relative to the folder
  int64_t size, modification_time;

  bool operator==(const TextFile&) const = default;
};

/// A range of the bytes of a file.
struct Passage {
  size_t file;        ///< index of the file
  size_t begin, end;  ///< the range of bytes
};

/// Returns the text and Markdown files below a folder, sorted by path. Hidden files and folders are skipped.
inline std::vector<TextFile> text_files(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::vector<TextFile> files;
  const auto options = fs::directory_options::skip_permission_denied;
  for (auto entry = fs::recursive_directory_iterator(folder, options);
       entry != fs::recursive_directory_iterator(); ++entry) {
    const auto name = entry->path().filename().string();
    if (name.starts_with('.')) {
      if (entry->is_directory()) entry.disable_recursion_pending();
      continue;
    }
    const auto extension = entry->path().extension();
    if (!entry->is_regular_file() || (extension != ".txt" && extension != ".md")) continue;
    files.push_back({fs::relative(entry->path(), folder).string(), static_cast<int64_t>(entry->file_size()),
                     entry->last_write_time().time_since_epoch().count()});
  }
  std::ranges::sort(files, {}, &TextFile::path);
  return files;
}

/// Whether the first 4096 bytes of a file contain no zero byte, as in all text but UTF-16 and UTF-32.
inline bool is_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("can't read " + path.string());
  std::string first(4096, ' ');
  file.read(first.data(), static_cast<std::streamsize>(first.size()));
  return first.find('\0') == std::string::npos;
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("can't read " + path.string());
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Splits a text into passages of at most 120 words, and appends them to `passages`. Passages end at empty
/// lines where possible: short paragraphs are joined, and only longer ones are split between words.
inline void add_passages(std::string_view text, size_t file, std::vector<Passage>& passages) {
  constexpr size_t max_words = 120;
  size_t begin = 0, end = 0, words = 0;  // the range and the number of words of the current passage
  size_t newlines = 0;
  const auto finish = [&] {
    if (words > 0) passages.push_back({file, begin, end});
    words = 0;
  };
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  for (size_t at = 0; at < text.size();) {
    if (is_space(text[at])) {
      newlines += text[at++] == '\n' ? 1 : 0;
      continue;
    }
    size_t last = at;
    while (last < text.size() && !is_space(text[last])) ++last;
    const bool is_paragraph = newlines > 1;
    newlines = 0;
    // A paragraph begins a new passage if the current one is at least half full.
    if (words == max_words || (is_paragraph && 2 * words >= max_words)) finish();
    if (words == 0) begin = at;
    ++words;
    end = at = last;
  }
  finish();
}
