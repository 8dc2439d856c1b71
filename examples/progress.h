#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>

#include "terminal.h"

/// Prints the progress of training: one line that is redrawn on a terminal, about ten lines otherwise.
class Progress {
 public:
  /// An epoch processes `per_epoch` items; `unit` is the plural of their name, such as "digits".
  Progress(int64_t epochs, int64_t per_epoch, const char* unit)
      : epochs_(epochs), per_epoch_(per_epoch), unit_(unit), on_terminal_(is_on_terminal()) {}

  /// Prints the results after an epoch. Epochs are counted from 1.
  void show(int64_t epoch, double loss, double accuracy) const {
    const auto text = fmt::format("{}/{}  loss {:.3f}  held-out {:.1f} %  {}", epoch, epochs_, loss,
                                  100 * accuracy, pace(epoch));
    const bool is_last = epoch == epochs_;
    if (on_terminal_) {
      const auto line = fmt::format("{} {}", progress_bar(epoch, epochs_), text);
      const auto width = line_width();
      fmt::print("\r{:<{}.{}}{}", line, width, width, is_last ? "\n" : "");
    } else if (epoch % std::max<int64_t>(1, epochs_ / 10) == 0 || is_last) {
      fmt::print("epoch {}\n", text);
    }
    std::fflush(stdout);
  }

 private:
  std::string pace(int64_t epoch) const {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    const double epochs_per_second = static_cast<double>(epoch) / elapsed.count();
    return fmt::format("{:.0f} {}/s  {:.0f} s left", epochs_per_second * static_cast<double>(per_epoch_),
                       unit_, static_cast<double>(epochs_ - epoch) / epochs_per_second);
  }

  int64_t epochs_;
  int64_t per_epoch_;
  const char* unit_;
  bool on_terminal_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};
