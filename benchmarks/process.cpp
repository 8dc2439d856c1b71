#include "process.h"

#include <fmt/ranges.h>

#include <array>
#include <cstdio>
#include <stdexcept>

namespace attend::benchmarks {

std::string output_of(const std::string& command) {
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error(fmt::format("{} can't be started", command));
  std::string output;
  std::array<char, 4096> part{};
  while (const size_t read = std::fread(part.data(), 1, part.size(), pipe)) output.append(part.data(), read);
  if (pclose(pipe) != 0) throw std::runtime_error(fmt::format("{} failed", command));
  return output;
}

}  // namespace attend::benchmarks
