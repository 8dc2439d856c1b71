#include "checkpoint/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <random>
#include <system_error>

#include "core/checks.h"

namespace attend::checkpoint {
namespace {

namespace fs = std::filesystem;

/// What `path` names where it is a link, which may be a file that is not there yet.
std::string resolved(const std::string& path) {
  constexpr int kMostLinks = 40;
  fs::path target = path;
  std::error_code error;
  for (int n = 0; n < kMostLinks && fs::is_symlink(target, error); ++n) {
    const auto named = fs::read_symlink(target, error);
    if (error) break;
    target = target.parent_path() / named;
  }
  return target.string();
}

std::string folder_of(const std::string& path) {
  const auto folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

/// Beside `path`, at random: other machines may write to the same folder.
std::string temporary_name(const std::string& path) {
  std::random_device random;
  const auto name = fs::path(path).filename().string().substr(0, 200);
  const auto file = "." + name + "." + std::to_string(random()) + std::to_string(random()) + ".tmp";
  return (fs::path(folder_of(path)) / file).string();
}

}  // namespace

AtomicFile::AtomicFile(const char* function, const std::string& path)
    : function_(function), asked_(path), path_(resolved(path)) {
  struct stat old {};
  const bool is_there = stat(path_.c_str(), &old) == 0;
  if (is_there && !S_ISREG(old.st_mode))
    checks::fail(function_, asked_.c_str(), "a file that can be written", "no plain file");
  folder_ = open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // NOLINT(*-vararg)
  if (folder_ < 0) fail();
  open_temporary();
  constexpr mode_t kPermissions = 07777;
  if (is_there && fchmod(file_, old.st_mode & kPermissions) != 0) fail();
}

void AtomicFile::open_temporary() {
  constexpr int kMode = 0666, kTries = 8;
  for (int n = 0; file_ < 0; ++n) {
    const auto name = temporary_name(path_);
    file_ = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode);  // NOLINT(*-vararg)
    if (file_ >= 0) temporary_ = name;
    if (file_ < 0 && (errno != EEXIST || n == kTries)) fail();
  }
}

AtomicFile::~AtomicFile() { give_up(); }

void AtomicFile::give_up() {
  if (file_ >= 0) close(file_);
  if (folder_ >= 0) close(folder_);
  file_ = folder_ = -1;
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
  // So that the new name is on the disk as well. EINVAL: a file system that has no such thing.
  if (fsync(folder_) != 0 && errno != EINVAL) fail();
}

void AtomicFile::fail() {
  const int error = errno;
  give_up();  // the constructor may have failed, after which there is no destructor
  checks::fail(function_, asked_.c_str(), "a file that can be written",
               std::generic_category().message(error));
}

}  // namespace attend::checkpoint
