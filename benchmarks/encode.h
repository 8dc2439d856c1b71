#pragma once

#include <string>

namespace attend::benchmarks {

/// Encodes the texts of a file, one per line, with the sentence encoder in the folder `model`, prints the
/// time in milliseconds without the time for loading, and writes the vectors to a safetensors file. encode.py
/// runs the program with the option that calls this function.
int print_encoding_time(const std::string& model, const std::string& texts, const std::string& vectors);

}  // namespace attend::benchmarks
