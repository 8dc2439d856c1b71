#pragma once

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdint>
#include <string>

/// Whether the standard output is a terminal.
inline bool is_on_terminal() { return isatty(STDOUT_FILENO) == 1; }

/// Returns the number of columns for a line: one less than the terminal has, since a line that fills the last
/// column may wrap.
inline int line_width() {
  winsize size = {};
  const bool is_known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return (is_known ? size.ws_col : 80) - 1;
}

/// Returns a progress bar such as [####........].
inline std::string progress_bar(int64_t done, int64_t total) {
  constexpr int64_t width = 12;
  const auto filled = static_cast<size_t>(total == 0 ? width : width * done / total);
  return fmt::format("[{:.<{}}]", std::string(filled, '#'), width);
}
