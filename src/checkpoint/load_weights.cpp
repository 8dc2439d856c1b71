#include <attend/checkpoint.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <system_error>

#include "checkpoint/mapped_file.h"
#include "core/checks.h"
#include "core/json.h"

namespace attend {
namespace {

namespace fs = std::filesystem;

constexpr auto kLoadWeights = "load_weights";

/// Returns the first ten names, in alphabetical order, of the files in a folder, for an error message.
std::string listed(const std::string& folder) {
  constexpr size_t kMaxListed = 10;
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  std::string text;
  size_t n = 0;
  for (const auto& name : names) {
    if (n++ == kMaxListed) return text + c10::str(" and ", names.size() - kMaxListed, " more");
    text += (text.empty() ? "" : ", ") + checkpoint::printable(name);
  }
  return text.empty() ? "no files" : text;
}

StateDict load_file(const std::string& path) {
  return path.ends_with(".safetensors") ? load_safetensors(path) : load_pytorch(path);
}

/// Reads the index of a sharded model: the names of its files, and of the tensors in each file. Fails unless
/// each file is in the folder of the index.
std::map<std::string, std::vector<std::string>> read_index(const std::string& path) {
  const auto source = checkpoint::map_file(kLoadWeights, path);
  json::Value root;
  try {
    root = json::parse({source.data(), source.size()});
  } catch (const json::ParseError& error) {
    source.fail("a JSON object", error.what());
  }
  const auto* const map = root.find("weight_map");
  if (map == nullptr || map->object() == nullptr) source.fail("a JSON object with a weight_map", "none");
  std::map<std::string, std::vector<std::string>> names;
  for (const auto& [name, file] : *map->object()) {
    if (file.string() == nullptr)
      source.fail("the name of a file for " + checkpoint::printable(name), file.type_name());
    const auto& shard = *file.string();
    if (shard.empty() || shard == "." || shard == ".." ||
        shard.find_first_of(std::string_view("/\\\0", 3)) != std::string::npos) {
      source.fail("the names of files beside the index", checkpoint::printable(shard));
    }
    names[shard].push_back(name);
  }
  return names;
}

StateDict load_shards(const std::string& folder, const std::string& index) {
  StateDict result;
  for (const auto& [file, names] : read_index(c10::str(folder, "/", index))) {
    auto shard = load_file(c10::str(folder, "/", file));
    for (const auto& name : names) {
      if (!shard.tensors.contains(name)) {
        checks::fail(kLoadWeights, index.c_str(),
                     c10::str("the tensor ", checkpoint::printable(name), " in ", file), "none");
      }
    }
    result.metadata.merge(shard.metadata);
    for (auto& entry : shard.tensors) {
      if (result.tensors.contains(entry.key())) {
        checks::fail(kLoadWeights, index.c_str(), "each tensor in one file",
                     c10::str(checkpoint::printable(entry.key()), " in ", file, " and another"));
      }
      result.tensors.insert(entry.key(), entry.value());
    }
  }
  return result;
}

}  // namespace

StateDict load_weights(const std::string& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    checks::fail(kLoadWeights, folder.c_str(), "a folder", error ? error.message() : "a file");
  }
  for (const char* name : {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                           "pytorch_model.bin.index.json"}) {
    if (!fs::exists(folder + "/" + name)) continue;
    return std::string_view(name).ends_with(".json") ? load_shards(folder, name)
                                                     : load_file(folder + "/" + name);
  }
  checks::fail(
      kLoadWeights, folder.c_str(),
      "model.safetensors or pytorch_model.bin, or the index of either (model.safetensors.index.json)",
      listed(folder));
}

}  // namespace attend
