#pragma once

#include <fmt/ranges.h>

#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

namespace attend::benchmarks {

/// Replaces the file. Throws std::runtime_error if it can't be written.
inline void write_file(const std::string& file, const std::string& content) {
  std::ofstream stream(file, std::ios::binary);
  stream << content;
  if (!stream.flush()) throw std::runtime_error(fmt::format("{} can't be written", file));
}

/// Returns the content, which is empty if there is no such file.
inline std::string read_file(const std::string& file) {
  std::ostringstream content;
  content << std::ifstream(file, std::ios::binary).rdbuf();
  return content.str();
}

}  // namespace attend::benchmarks
