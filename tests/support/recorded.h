#pragma once

#include <attend/checkpoint.h>
#include <torch/torch.h>

#include <cstdlib>
#include <map>
#include <string>

namespace attend::testing {

/// The tensors of one case, by name.
using Recorded = std::map<std::string, torch::Tensor>;

/// Returns the tensors that a script of tests/record stored in a file of tests/data, where they are named
/// case/name, by case.
inline std::map<std::string, Recorded> recorded_cases(const std::string& file) {
  const char* folder = std::getenv("ATTEND_TEST_DATA");
  TORCH_CHECK(folder != nullptr, "ATTEND_TEST_DATA is not set: run the tests through ctest");
  const auto path = std::string(folder) + "/" + file;
  const auto recorded = file.ends_with(".pt") ? load_pytorch(path) : load_safetensors(path);
  std::map<std::string, Recorded> cases;
  for (const auto& entry : recorded.tensors) {
    const auto slash = entry.key().find('/');
    cases[entry.key().substr(0, slash)][entry.key().substr(slash + 1)] = entry.value();
  }
  return cases;
}

}  // namespace attend::testing
