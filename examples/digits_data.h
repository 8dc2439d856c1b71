#pragma once

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <ranges>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "command_line.h"
#include "parse_integer.h"

constexpr int64_t digit_side = 8;
constexpr int64_t digit_classes = 10;

struct Digits {
  torch::Tensor images;  ///< [N, 8, 8], from 0 (paper) to 1 (ink)
  torch::Tensor labels;  ///< [N], the digit that each image shows

  int64_t size() const { return labels.size(0); }
  Digits at(const torch::Tensor& indices) const {
    return {images.index_select(0, indices), labels.index_select(0, indices)};
  }
};

inline int64_t parse_field(std::string_view field, int64_t high, const std::string& place) {
  const auto value = parse_integer(field, 0, high);
  if (!value) {
    throw InputError(
        fmt::format("{}: expected an integer from 0 to {}, got {:?}", place, high, field.substr(0, 20)));
  }
  return *value;
}

/// Appends the 64 pixels and the label of one line of the file.
inline void parse_digit(std::string_view line, const std::string& place, std::vector<float>& pixels,
                        std::vector<int64_t>& labels) {
  constexpr int64_t pixel_count = digit_side * digit_side;
  const auto field_count = 1 + std::ranges::count(line, ',');
  if (field_count != pixel_count + 1) {
    throw InputError(fmt::format("{}: expected {} fields, got {}", place, pixel_count + 1, field_count));
  }
  int64_t column = 0;
  for (const auto part : std::views::split(line, ',')) {
    const std::string_view field(part.begin(), part.end());
    const auto field_place = fmt::format("{}: field {}", place, ++column);
    if (column <= pixel_count) {
      pixels.push_back(static_cast<float>(parse_field(field, 16, field_place)));
    } else {
      labels.push_back(parse_field(field, digit_classes - 1, field_place));
    }
  }
}

/// Reads a file in the format of data/README.md. Throws `InputError`, which names the file and the line.
inline Digits read_digits(const std::string& path) {
  constexpr size_t min_digits = 5;  // a fifth is held out
  std::ifstream file(path);
  if (!file) throw InputError(fmt::format("{}: {}", path, std::generic_category().message(errno)));
  std::vector<float> pixels;
  std::vector<int64_t> labels;
  std::string line;
  for (int64_t line_number = 1; std::getline(file, line); ++line_number) {
    parse_digit(line, fmt::format("{}:{}", path, line_number), pixels, labels);
  }
  if (file.bad()) throw InputError(fmt::format("{}: cannot be read", path));
  if (labels.size() < min_digits) {
    throw InputError(fmt::format("{}: expected at least {} digits, got {}", path, min_digits, labels.size()));
  }
  return {torch::tensor(pixels).view({-1, digit_side, digit_side}) / 16, torch::tensor(labels)};
}
