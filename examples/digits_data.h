#pragma once

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <ranges>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "whole_number.h"

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

/// A file that is not what data/README.md describes.
struct DataError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline int64_t parse_field(std::string_view field, int64_t high, const std::string& place) {
  const auto number = whole_number(field, 0, high);
  if (!number) {
    throw DataError(
        fmt::format("{}: expected a whole number from 0 to {}, got {:?}", place, high, field.substr(0, 20)));
  }
  return *number;
}

/// Appends the 64 pixels and the label of one line.
inline void parse_digit(std::string_view line, const std::string& place, std::vector<float>& pixels,
                        std::vector<int64_t>& labels) {
  constexpr int64_t pixel_count = digit_side * digit_side;
  const auto field_count = 1 + std::ranges::count(line, ',');
  if (field_count != pixel_count + 1) {
    throw DataError(fmt::format("{}: expected {} fields, got {}", place, pixel_count + 1, field_count));
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

/// Error: `DataError` that names the file and, where there is one, the line.
inline Digits read_digits(const std::string& path) {
  constexpr size_t least = 5;  // a fifth of them is held out
  std::ifstream file(path);
  if (!file) throw DataError(fmt::format("{}: {}", path, std::generic_category().message(errno)));
  std::vector<float> pixels;
  std::vector<int64_t> labels;
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    parse_digit(line, fmt::format("{}:{}", path, number), pixels, labels);
  }
  if (file.bad()) throw DataError(fmt::format("{}: can't be read", path));
  if (labels.size() < least) {
    throw DataError(fmt::format("{}: expected at least {} digits, got {}", path, least, labels.size()));
  }
  return {torch::tensor(pixels).view({-1, digit_side, digit_side}) / 16, torch::tensor(labels)};
}
