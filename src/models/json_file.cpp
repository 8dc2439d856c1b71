#include "models/json_file.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/checks.h"

namespace attend::models {

nlohmann::json json_of(const char* function, const std::string& path) {
  std::ifstream file(path);
  if (!file) checks::fail(function, "path", "a file that can be read", path);
  auto parsed = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_structured()) checks::fail(function, "path", "a file with a JSON object or array", path);
  return parsed;
}

}  // namespace attend::models
