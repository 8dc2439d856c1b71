#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

namespace attend::testing {

/// Returns the path of a file that tests/record/record_checkpoints.py wrote.
inline std::string recorded(const std::string& name) {
  const char* folder = std::getenv("ATTEND_TEST_DATA");
  TORCH_CHECK(folder != nullptr, "ATTEND_TEST_DATA is not set: run the tests through ctest");
  return std::string(folder) + "/checkpoints/" + name;
}

inline std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TORCH_CHECK(file.good(), path, " can't be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

inline torch::Tensor bytes_of(const std::string& text) {
  auto bytes = torch::empty({static_cast<int64_t>(text.size())}, torch::kByte);
  std::copy(text.begin(), text.end(), static_cast<char*>(bytes.data_ptr()));
  return bytes;
}

/// Returns a safetensors file with a header and data.
inline std::string file_of(const std::string& header, const std::string& data = "") {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

template <typename T>
std::string little_endian(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

/// Returns an archive of torch.save with a pickle and no storages: a zip archive with one member.
inline std::string archive_of(const std::string& pickle) {
  const std::string name = "a/data.pkl";
  const auto size = static_cast<uint32_t>(pickle.size());
  // The checksum is not read.
  const auto common = std::string(8, '\0') + std::string(4, '\0') + little_endian(size) +
                      little_endian(size) + little_endian(static_cast<uint16_t>(name.size())) +
                      std::string(2, '\0');
  const auto local = "PK\x03\x04" + std::string(2, '\0') + common + name + pickle;
  const auto central = "PK\x01\x02" + std::string(4, '\0') + common + std::string(14, '\0') + name;
  return local + central + "PK\x05\x06" + std::string(4, '\0') + little_endian(uint16_t{1}) +
         little_endian(uint16_t{1}) + little_endian(static_cast<uint32_t>(central.size())) +
         little_endian(static_cast<uint32_t>(local.size())) + std::string(2, '\0');
}

}  // namespace attend::testing
