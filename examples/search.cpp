// Semantic search: a pretrained sentence encoder maps the question and the passages of a folder's text files
// to vectors, and the passages with the vectors closest to the question's are printed.
#include <attend/attend.h>
#include <attend/models/sentence_encoder.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "command_line.h"
#include "passages.h"
#include "terminal.h"

namespace {

namespace fs = std::filesystem;
using attend::models::SentenceEncoder;

/// The passages of a folder, and their vectors.
struct Index {
  std::vector<TextFile> files;
  std::vector<Passage> passages;
  torch::Tensor vectors;  ///< [N, width], each of length 1
};

/// Prints the progress as one line that is redrawn on a terminal, and nothing otherwise.
void show_progress(size_t done, size_t total) {
  if (!is_on_terminal()) return;
  const auto line =
      fmt::format("{} {}/{} passages", progress_bar(static_cast<int64_t>(done), static_cast<int64_t>(total)),
                  done, total);
  const auto width = line_width();
  fmt::print("\r{:<{}.{}}{}", line, width, width, done == total ? "\n" : "");
  std::fflush(stdout);
}

Index build_index(const fs::path& folder, std::vector<TextFile> files, SentenceEncoder& encoder) {
  Index index;
  std::vector<std::string> texts;
  for (size_t n = 0; n < files.size(); ++n) {
    const auto text = read_file(folder / files[n].path);
    const size_t first = index.passages.size();
    add_passages(text, n, index.passages);
    for (size_t p = first; p < index.passages.size(); ++p) {
      const auto& passage = index.passages[p];
      texts.push_back(text.substr(passage.begin, passage.end - passage.begin));
    }
  }
  index.files = std::move(files);
  index.vectors = encoder.encode(texts, [&](size_t done) { show_progress(done, texts.size()); });
  return index;
}

// ---- the index file: the vectors, the paths and states of the files, and the positions of the passages

torch::Tensor integer_rows(const std::vector<int64_t>& values, int64_t columns) {
  return torch::tensor(values, torch::kLong).view({-1, columns});
}

void save_index(const Index& index, const std::string& model, const fs::path& path) {
  std::string names;
  std::vector<int64_t> files, passages;
  for (const auto& file : index.files) {
    names += file.path + '\n';
    files.insert(files.end(), {file.size, file.modification_time});
  }
  for (const auto& [file, begin, end] : index.passages) {
    for (const auto value : {file, begin, end}) passages.push_back(static_cast<int64_t>(value));
  }
  attend::StateDict saved;
  saved.tensors.insert("vectors", index.vectors);
  saved.tensors.insert("files", integer_rows(files, 2));
  saved.tensors.insert("passages", integer_rows(passages, 3));
  saved.metadata = {{"names", names}, {"model", model}};
  attend::save_safetensors(saved, path.string());
}

/// Loads the index if it was built for these files and this model. Throws if the file is not an index.
std::optional<Index> load_index(const std::vector<TextFile>& files, const std::string& model,
                                const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  const auto saved = attend::load_safetensors(path.string());
  const auto& [tensors, metadata] = saved;
  if (!tensors.contains("vectors") || !tensors.contains("files") || !tensors.contains("passages") ||
      !metadata.contains("names") || !metadata.contains("model")) {
    throw std::runtime_error(
        path.string() + " is not an index of this program: choose another file with --index, or delete it");
  }
  Index index;
  const auto sizes = saved.tensors["files"], passages = saved.tensors["passages"];
  std::istringstream names(saved.metadata.at("names"));
  std::string name;
  for (int64_t n = 0; std::getline(names, name); ++n)
    index.files.push_back({name, sizes[n][0].item<int64_t>(), sizes[n][1].item<int64_t>()});
  if (index.files != files || saved.metadata.at("model") != model) return std::nullopt;
  const auto rows = passages.accessor<int64_t, 2>();
  for (int64_t n = 0; n < rows.size(0); ++n) {
    index.passages.push_back(
        {static_cast<size_t>(rows[n][0]), static_cast<size_t>(rows[n][1]), static_cast<size_t>(rows[n][2])});
  }
  index.vectors = saved.tensors["vectors"];
  return index;
}

// ---- questions

struct Options {
  std::string folder, question, model, index, explain;
  int64_t top = 3;
};

/// A passage with its text.
struct PassageText {
  std::string path, text;
  int64_t line;  ///< the first line of the passage in the file, counted from 1
};

PassageText read_passage(const Index& index, const Passage& passage, const fs::path& folder) {
  const auto& path = index.files.at(passage.file).path;
  const auto text = read_file(folder / path);
  return {path, text.substr(passage.begin, passage.end - passage.begin),
          1 + std::ranges::count(text.substr(0, passage.begin), '\n')};
}

/// Writes an HTML page with the attention weights of all layers and heads over the question and a passage.
void explain(SentenceEncoder& encoder, const std::string& question, const std::string& passage,
             const std::string& file) {
  const torch::NoGradGuard no_grad;
  const auto encoding = encoder.tokenizer().encode(question, passage, encoder.max_length());
  const auto row = [](const std::vector<int64_t>& values) {
    return torch::tensor(values, torch::kLong).unsqueeze(0);
  };
  const auto weights =
      encoder.bert()->attention_weights(row(encoding.ids), {.token_type_ids = row(encoding.token_type_ids)});
  std::vector<std::string> tokens;
  for (const auto id : encoding.ids) tokens.push_back(encoder.tokenizer().id_to_token(id));
  std::ofstream page(file);
  page << attend::attention_html(weights.select(1, 0), {.queries = tokens, .keys = tokens}, question);
  if (!page.flush()) throw std::runtime_error("cannot write " + file);
  fmt::print("wrote {}\n", file);
}

/// Returns the text with ? in place of control characters, which a terminal could interpret.
std::string printable(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f; }, '?');
  return text;
}

void answer(const Index& index, SentenceEncoder& encoder, const std::string& question,
            const Options& options) {
  const std::string prompt = encoder.options().prompts().contains("query") ? "query" : "";
  const auto scores = torch::matmul(index.vectors, encoder.encode({question}, {}, prompt)[0]);
  const auto [best, indices] = scores.topk(std::min(options.top, scores.numel()));
  for (int64_t n = 0; n < indices.numel(); ++n) {
    const auto& passage = index.passages[static_cast<size_t>(indices[n].item<int64_t>())];
    const auto [path, text, line] = read_passage(index, passage, options.folder);
    fmt::print("{:.3f}  {}:{}\n{}\n\n", best[n].item<double>(), printable(path), line, printable(text));
    if (n == 0 && !options.explain.empty()) explain(encoder, question, text, options.explain);
  }
}

void answer_interactively(const Index& index, SentenceEncoder& encoder, const Options& options) {
  std::string question;
  while (fmt::print("? "), std::fflush(stdout), std::getline(std::cin, question)) {
    if (!question.empty()) answer(index, encoder, question, options);
  }
  fmt::print("\n");
}

/// Skips files that are not text, whatever their names, with a message.
void skip_binary_files(const fs::path& folder, std::vector<TextFile>& files) {
  std::erase_if(files, [&](const TextFile& file) {
    if (is_text(folder / file.path)) return false;
    fmt::print(stderr, "search: skipped {}, which is not text\n", printable(file.path));
    return true;
  });
}

void run(const Options& options) {
  const fs::path folder = options.folder;
  const fs::path file =
      options.index.empty() ? folder / ".attend-index.safetensors" : fs::path(options.index);
  const auto model = fs::absolute(options.model).string();
  auto files = text_files(folder);
  skip_binary_files(folder, files);
  if (files.empty()) throw std::runtime_error("no .txt or .md files in " + options.folder);
  auto encoder = SentenceEncoder::load(options.model);
  auto index = load_index(files, model, file);
  if (index) {
    fmt::print("loaded the index of {} passages in {} files\n", index->passages.size(), index->files.size());
  } else {
    index = build_index(folder, std::move(files), encoder);
    save_index(*index, model, file);
    fmt::print("indexed {} passages in {} files\n", index->passages.size(), index->files.size());
  }
  if (options.question.empty()) {
    answer_interactively(*index, encoder, options);
  } else {
    answer(*index, encoder, options.question, options);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CommandLine command("search",
                      "Answers questions with passages of the text and Markdown files in a folder.");
  command.add_folder("folder", options.folder, "The folder with .txt and .md files");
  command.add("question", options.question, "The question; without it, questions are read line by line");
  command.add_folder("--model", options.model,
                     "The folder of a sentence encoder: config.json, model.safetensors, vocab.txt");
  command.add("--index", options.index,
              "The file of the index (default: .attend-index.safetensors in the folder)");
  command.add("--top", options.top, 1, 1000, "The number of passages to show");
  command.add(
      "--explain", options.explain,
      "An HTML file to write, which shows the attention weights over the question and the best passage");
  return command.run(argc, argv, [&] { run(options); });
}
