#pragma once

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdint>
#include <string>

/// Whether the standard output is a terminal.
inline bool on_terminal() { return isatty(STDOUT_FILENO) == 1; }

/// One column less than the terminal has: a line that reaches the last one may wrap.
inline int line_width() {
  winsize size = {};
  const bool is_known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return (is_known ? size.ws_col : 80) - 1;
}

/// [####........]
inline std::string bar(int64_t done, int64_t total) {
  constexpr int64_t width = 12;
  const auto filled = static_cast<size_t>(total == 0 ? width : width * done / total);
  return fmt::format("[{:.<{}}]", std::string(filled, '#'), width);
}
