#pragma once

#include <string>

namespace attend::benchmarks {

/// Encodes the texts of a file, one a line, with the sentence encoder of a folder, and prints the
/// milliseconds that it took, loading not included; writes the vectors to a safetensors file. What encode.py
/// calls.
int print_encoding_time(const std::string& model, const std::string& texts, const std::string& vectors);

}  // namespace attend::benchmarks
