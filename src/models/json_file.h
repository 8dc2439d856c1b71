#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace attend::models {

/// The JSON object or array of a file. Fails, in the name of `function`, where there is none.
nlohmann::json json_of(const char* function, const std::string& path);

}  // namespace attend::models
