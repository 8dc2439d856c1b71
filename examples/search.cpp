// Answers questions with the passages of a folder's text files that are nearest to them, by a pretrained
// sentence encoder.
#include <attend/attend.h>
#include <attend/models/sentence_encoder.h>
#include <fmt/format.h>
#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "passages.h"
#include "terminal.h"

namespace {

namespace fs = std::filesystem;
using attend::models::SentenceEncoder;

/// What is known of a folder: its passages, and a vector of each.
struct Index {
  std::vector<TextFile> files;
  std::vector<Passage> passages;
  torch::Tensor vectors;  ///< [N, width], each of length 1
};

/// One line that is redrawn on a terminal, nothing elsewhere.
void show_progress(size_t done, size_t total) {
  if (!on_terminal()) return;
  const auto line = fmt::format("{} {}/{} passages",
                                bar(static_cast<int64_t>(done), static_cast<int64_t>(total)), done, total);
  const auto width = line_width();
  fmt::print("\r{:<{}.{}}{}", line, width, width, done == total ? "\n" : "");
  std::fflush(stdout);
}

Index build_index(const fs::path& folder, std::vector<TextFile> files, SentenceEncoder& encoder) {
  Index index;
  std::vector<std::string> texts;
  for (size_t n = 0; n < files.size(); ++n) {
    const auto text = contents_of(folder / files[n].path);
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

// ---- the saved index: the vectors, and as numbers and text what they are of

torch::Tensor numbers(const std::vector<int64_t>& values, int64_t columns) {
  return torch::tensor(values, torch::kLong).view({-1, columns});
}

void save_index(const Index& index, const std::string& model, const fs::path& path) {
  std::string names;
  std::vector<int64_t> files, passages;
  for (const auto& file : index.files) {
    names += file.path + '\n';
    files.insert(files.end(), {file.size, file.time});
  }
  for (const auto& [file, begin, end] : index.passages) {
    for (const auto value : {file, begin, end}) passages.push_back(static_cast<int64_t>(value));
  }
  attend::Checkpoint checkpoint;
  checkpoint.tensors.insert("vectors", index.vectors);
  checkpoint.tensors.insert("files", numbers(files, 2));
  checkpoint.tensors.insert("passages", numbers(passages, 3));
  checkpoint.metadata = {{"names", names}, {"model", model}};
  attend::save_safetensors(checkpoint, path.string());
}

/// The saved index, if it is of these files and this model. Error: the file is no index.
std::optional<Index> load_index(const std::vector<TextFile>& files, const std::string& model,
                                const fs::path& path) {
  if (!fs::exists(path)) return std::nullopt;
  const auto checkpoint = attend::load_safetensors(path.string());
  const auto& [tensors, metadata] = checkpoint;
  if (!tensors.contains("vectors") || !tensors.contains("files") || !tensors.contains("passages") ||
      !metadata.contains("names") || !metadata.contains("model")) {
    throw std::runtime_error(path.string() +
                             " is no index of search: name another with --index, or delete it");
  }
  Index index;
  const auto sizes = checkpoint.tensors["files"], passages = checkpoint.tensors["passages"];
  std::istringstream names(checkpoint.metadata.at("names"));
  std::string name;
  for (int64_t n = 0; std::getline(names, name); ++n)
    index.files.push_back({name, sizes[n][0].item<int64_t>(), sizes[n][1].item<int64_t>()});
  if (index.files != files || checkpoint.metadata.at("model") != model) return std::nullopt;
  const auto rows = passages.accessor<int64_t, 2>();
  for (int64_t n = 0; n < rows.size(0); ++n) {
    index.passages.push_back(
        {static_cast<size_t>(rows[n][0]), static_cast<size_t>(rows[n][1]), static_cast<size_t>(rows[n][2])});
  }
  index.vectors = checkpoint.tensors["vectors"];
  return index;
}

// ---- questions

struct Settings {
  std::string folder, question, model, index, explain;
  int64_t top = 3;
};

/// A passage as it is shown.
struct Shown {
  std::string path, text;
  int64_t line;  ///< of the file, from 1
};

Shown shown(const Index& index, const Passage& passage, const fs::path& folder) {
  const auto& path = index.files.at(passage.file).path;
  const auto text = contents_of(folder / path);
  return {path, text.substr(passage.begin, passage.end - passage.begin),
          1 + std::ranges::count(text.substr(0, passage.begin), '\n')};
}

/// Writes a page with what each layer's heads attend to as the model reads the question and the passage.
void explain(SentenceEncoder& encoder, const std::string& question, const std::string& passage,
             const std::string& file) {
  const torch::NoGradGuard no_grad;
  const auto encoding = encoder.tokenizer().encode(question, passage, encoder.options().max_length);
  const auto row = [](const std::vector<int64_t>& values) {
    return torch::tensor(values, torch::kLong).unsqueeze(0);
  };
  const auto weights =
      encoder.bert()->attention_weights(row(encoding.ids), {.token_type_ids = row(encoding.token_types)});
  std::vector<std::string> tokens;
  for (const auto id : encoding.ids) tokens.push_back(encoder.tokenizer().token(id));
  std::ofstream page(file);
  page << attend::attention_html(weights.select(1, 0), {.queries = tokens, .keys = tokens}, question);
  if (!page.flush()) throw std::runtime_error("can't write " + file);
  fmt::print("wrote {}\n", file);
}

/// Without what a terminal would take for a command.
std::string printable(std::string text) {
  std::ranges::replace_if(
      text, [](unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f; }, '?');
  return text;
}

void answer(const Index& index, SentenceEncoder& encoder, const std::string& question,
            const Settings& settings) {
  const auto scores = torch::matmul(index.vectors, encoder.encode({question})[0]);
  const auto [best, numbers] = scores.topk(std::min(settings.top, scores.numel()));
  for (int64_t n = 0; n < numbers.numel(); ++n) {
    const auto& passage = index.passages[static_cast<size_t>(numbers[n].item<int64_t>())];
    const auto [path, text, line] = shown(index, passage, settings.folder);
    fmt::print("{:.3f}  {}:{}\n{}\n\n", best[n].item<double>(), printable(path), line, printable(text));
    if (n == 0 && !settings.explain.empty()) explain(encoder, question, text, settings.explain);
  }
}

void answer_interactively(const Index& index, SentenceEncoder& encoder, const Settings& settings) {
  std::string question;
  while (fmt::print("? "), std::fflush(stdout), std::getline(std::cin, question)) {
    if (!question.empty()) answer(index, encoder, question, settings);
  }
  fmt::print("\n");
}

/// Leaves out, and says so, what is no text, whatever its name.
void keep_texts(const fs::path& folder, std::vector<TextFile>& files) {
  std::erase_if(files, [&](const TextFile& file) {
    if (is_text(folder / file.path)) return false;
    fmt::print(stderr, "search: {} is no text, and left out\n", printable(file.path));
    return true;
  });
}

void run(const Settings& settings) {
  const fs::path folder = settings.folder;
  const fs::path file =
      settings.index.empty() ? folder / ".attend-index.safetensors" : fs::path(settings.index);
  const auto model = fs::absolute(settings.model).string();
  auto files = text_files(folder);
  keep_texts(folder, files);
  if (files.empty()) throw std::runtime_error("no .txt or .md files in " + settings.folder);
  auto encoder = SentenceEncoder::load(settings.model);
  auto index = load_index(files, model, file);
  if (index) {
    fmt::print("{} passages of {} files, as indexed before\n", index->passages.size(), index->files.size());
  } else {
    index = build_index(folder, std::move(files), encoder);
    save_index(*index, model, file);
    fmt::print("indexed {} passages of {} files\n", index->passages.size(), index->files.size());
  }
  if (settings.question.empty()) {
    answer_interactively(*index, encoder, settings);
  } else {
    answer(*index, encoder, settings.question, settings);
  }
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app("Answers questions with passages of the text and Markdown files in a folder");
  app.add_option("folder", settings.folder, "Where the files are")->required()->check(CLI::ExistingDirectory);
  app.add_option("question", settings.question, "Without one, questions are read line by line");
  app.add_option("--model", settings.model,
                 "The folder of a sentence encoder: config.json, model.safetensors, vocab.txt")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--index", settings.index,
                 "Where the index is kept; default: .attend-index.safetensors in the folder");
  app.add_option("--top", settings.top, "How many passages to show")
      ->check(CLI::Range(int64_t{1}, int64_t{1000}))
      ->capture_default_str();
  app.add_option("--explain", settings.explain,
                 "Write a page that shows what the model attends to in the best passage");
  CLI11_PARSE(app, argc, argv);
  try {
    run(settings);
  } catch (const c10::Error& error) {
    fmt::print(stderr, "search: {}\n", error.what_without_backtrace());
    return 1;
  } catch (const std::exception& error) {
    fmt::print(stderr, "search: {}\n", error.what());
    return 1;
  }
}
