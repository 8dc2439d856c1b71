#include "atomic_file.h"

#include <c10/util/StringUtil.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>

#include "../checks.h"

namespace attend::checkpoint {
namespace {

namespace fs = std::filesystem;

/// The file itself where `path` is a link to one.
std::string resolved(const std::string& path) {
  std::error_code error;
  const auto target = fs::canonical(path, error);
  return error ? path : target.string();
}

std::string folder_of(const std::string& path) {
  const auto folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

/// Beside `path`, and unlike every other that is being written.
std::string temporary_name(const std::string& path) {
  static std::atomic<unsigned> count = 0;
  const auto name = fs::path(path).filename().string().substr(0, 200);
  const auto file = c10::str(".", name, ".", getpid(), ".", count++, ".tmp");
  return (fs::path(folder_of(path)) / file).string();
}

}  // namespace

AtomicFile::AtomicFile(const char* function, const std::string& path)
    : function_(function), asked_(path), path_(resolved(path)) {
  const auto name = temporary_name(path_);
  constexpr int kMode = 0666;
  // A process of the same number may have been killed while it wrote: what it left is in the way.
  unlink(name.c_str());
  file_ = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode);  // NOLINT(*-vararg)
  if (file_ < 0) fail();
  temporary_ = name;
}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) close(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t size) {
  constexpr size_t kAtOnce = size_t{1} << 30;
  const auto* rest = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(file_, rest, std::min(size, kAtOnce));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail();
    rest += written;
    size -= static_cast<size_t>(written);
  }
}

void AtomicFile::commit() {
  if (fsync(file_) != 0) fail();
  const int closed = close(file_);
  file_ = -1;
  if (closed != 0 || std::rename(temporary_.c_str(), path_.c_str()) != 0) fail();
  temporary_.clear();
  synchronise_folder();
}

/// So that the new name is on the disk as well.
void AtomicFile::synchronise_folder() const {
  const int folder = open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // NOLINT(*-vararg)
  if (folder < 0) fail();
  const bool failed = fsync(folder) != 0 && errno != EINVAL;  // EINVAL: a file system that has no such thing
  const int error = errno;
  close(folder);
  errno = error;
  if (failed) fail();
}

void AtomicFile::fail() const {
  checks::fail(function_, asked_.c_str(), "a file that can be written",
               std::generic_category().message(errno));
}

}  // namespace attend::checkpoint
