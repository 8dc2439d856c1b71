#include "checkpoint/mapped_file.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "core/checks.h"

namespace attend::checkpoint {
namespace {

/// Closes a file descriptor at the end of its scope.
class FileDescriptor {
 public:
  explicit FileDescriptor(int descriptor) : descriptor_(descriptor) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

std::string system_error() { return std::generic_category().message(errno); }

at::Tensor mapped_bytes(const char* function, const std::string& path) {
  const FileDescriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));  // NOLINT(*-vararg)
  struct stat status = {};
  if (file.get() < 0 || fstat(file.get(), &status) != 0) {
    checks::fail(function, path.c_str(), "a readable file", system_error());
  }
  if (!S_ISREG(status.st_mode))
    checks::fail(function, path.c_str(), "a regular file", "a directory or special file");
  if (status.st_size == 0) return at::empty({0}, at::kByte);
  const auto size = static_cast<size_t>(status.st_size);
  void* const memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file.get(), 0);
  if (memory == MAP_FAILED)
    checks::fail(function, path.c_str(), "a file that can be memory-mapped", system_error());
  return at::from_blob(memory, {status.st_size}, [size](void* start) { munmap(start, size); }, at::kByte);
}

}  // namespace

void Source::fail(const std::string& expected, const std::string& got) const {
  checks::fail(function, name.c_str(), expected, got);
}

Source map_file(const char* function, const std::string& path) {
  return {function, path, mapped_bytes(function, path)};
}

Source file_in_memory(const char* function, const at::Tensor& bytes) {
  checks::check_strided(function, "bytes", bytes);
  if (bytes.scalar_type() != at::kByte || bytes.dim() != 1 || !bytes.device().is_cpu()) {
    checks::fail(function, "bytes", "uint8 [N] on the CPU",
                 c10::str(checks::describe(bytes), " on ", bytes.device()));
  }
  return {function, "bytes", bytes.contiguous()};
}

at::Tensor tensor_at(const Source& source, uint64_t offset, uint64_t count, at::ScalarType dtype) {
  const auto length = static_cast<int64_t>(count);
  char* const start = static_cast<char*>(source.bytes.data_ptr()) + offset;
  const auto view = [&](at::ScalarType type) {
    return at::from_blob(start, {length}, [owner = source.bytes](void*) {}, type);
  };
  if (count == 0) return at::empty({0}, dtype);
  // A bool with another byte than 0 or 1 is undefined behaviour.
  if (dtype == at::kBool) return view(at::kByte).ne(0);
  const auto size = c10::elementSize(dtype);
  if (reinterpret_cast<uintptr_t>(start) % size == 0) return view(dtype);
  auto copy = at::empty({length}, dtype);
  std::memcpy(copy.mutable_data_ptr(), start, count * size);
  return copy;
}

std::string printable(std::string_view text) {
  constexpr size_t kMaxBytes = 80;
  std::string quoted = "\"";
  for (const char character : text.substr(0, kMaxBytes)) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte >= 0x20 && byte < 0x7f) {
      quoted += character;
    } else {
      constexpr const char* kDigits = "0123456789abcdef";
      quoted += {'\\', 'x', kDigits[byte / 16], kDigits[byte % 16]};
    }
  }
  return quoted + (text.size() > kMaxBytes ? "...\"" : "\"");
}

}  // namespace attend::checkpoint
