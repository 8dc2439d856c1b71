// A pretrained sentence encoder, against the Python library transformers. Each side runs in a separate
// process.
#include "encode.h"

#include <ATen/Parallel.h>
#include <attend/checkpoint.h>
#include <attend/models/sentence_encoder.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "process.h"
#include "row.h"

namespace attend::benchmarks {
namespace {

Comparison compare_with_transformers(const std::string& python, const std::string& model,
                                     const std::string& order, int threads, int pairs) {
  const auto program = std::filesystem::canonical("/proc/self/exe").string();
  std::istringstream output(
      output_of(fmt::format("'{}' -B '{}' --model '{}' --program '{}' --threads {} --pairs {} {}", python,
                            ATTEND_ENCODE, model, program, threads, pairs, order)));
  Comparison times{};
  if (!(output >> times.ours >> times.baseline >> times.ratio)) {
    throw std::runtime_error("encode.py printed no times");
  }
  return times;
}

}  // namespace

int print_encoding_time(const std::string& model, const std::string& texts, const std::string& vectors) {
  std::vector<std::string> lines;
  std::ifstream file(texts);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  auto encoder = models::SentenceEncoder::load(model);
  encoder.encode({lines.begin(), lines.begin() + static_cast<int64_t>(std::min<size_t>(lines.size(), 32))});
  const auto start = std::chrono::steady_clock::now();
  const auto encoded = encoder.encode(lines);
  const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - start;
  StateDict state_dict;
  state_dict.tensors.insert("vectors", encoded);
  save_safetensors(state_dict, vectors);
  fmt::print("{}\n", time.count());
  return 0;
}

std::vector<Row> encode_rows() {
  const char* python = std::getenv("ATTEND_TRANSFORMERS");
  const char* model = std::getenv("ATTEND_MINILM");
  if (python == nullptr || model == nullptr) return {};
  const auto row = [&](const std::string& name, const std::string& order) {
    return Row{.name = "1000 passages by MiniLM / Python's transformers, " + name,
               .target = 1.3,
               .make = {},
               .threads = Threads::all,
               .in_quick = false,
               .in_own_process = [python = std::string(python), model = std::string(model), order](
                                     int threads, int pairs) {
                 return compare_with_transformers(python, model, order, threads, pairs);
               }};
  };
  return {row("batches of 32", ""), row("batches of 32 sorted by length", "--sorted")};
}

}  // namespace attend::benchmarks
