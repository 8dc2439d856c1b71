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

/// Follows symbolic links. The file to which they lead need not exist.
std::string follow_links(const std::string& path) {
  constexpr int kMaxLinks = 40;
  fs::path target = path;
  std::error_code error;
  for (int n = 0; n < kMaxLinks && fs::is_symlink(target, error); ++n) {
    const auto link = fs::read_symlink(target, error);
    if (error) break;
    target = target.parent_path() / link;
  }
  return target.string();
}

std::string folder_of(const std::string& path) {
  const auto folder = fs::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

/// Returns a random name in the same folder. The name is random since other machines may write to the folder
/// as well.
std::string temporary_name(const std::string& path) {
  std::random_device random;
  const auto name = fs::path(path).filename().string().substr(0, 200);
  const auto file = "." + name + "." + std::to_string(random()) + std::to_string(random()) + ".tmp";
  return (fs::path(folder_of(path)) / file).string();
}

}  // namespace

AtomicFile::AtomicFile(const char* function, const std::string& path)
    : function_(function), given_path_(path), path_(follow_links(path)) {
  struct stat old {};
  const bool exists = stat(path_.c_str(), &old) == 0;
  if (exists && !S_ISREG(old.st_mode))
    checks::fail(function_, given_path_.c_str(), "a writable file", "a directory or special file");
  folder_ = open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);  // NOLINT(*-vararg)
  if (folder_ < 0) fail();
  open_temporary();
  constexpr mode_t kPermissions = 07777;
  if (exists && fchmod(file_, old.st_mode & kPermissions) != 0) fail();
}

void AtomicFile::open_temporary() {
  constexpr int kMode = 0666, kMaxAttempts = 8;
  for (int n = 0; file_ < 0; ++n) {
    const auto name = temporary_name(path_);
    file_ = open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kMode);  // NOLINT(*-vararg)
    if (file_ >= 0) temporary_ = name;
    if (file_ < 0 && (errno != EEXIST || n == kMaxAttempts)) fail();
  }
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() {
  if (file_ >= 0) close(file_);
  if (folder_ >= 0) close(folder_);
  file_ = folder_ = -1;
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, size_t size) {
  constexpr size_t kMaxBytes = size_t{1} << 30;
  const auto* rest = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(file_, rest, std::min(size, kMaxBytes));
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
  // Flushes the renamed directory entry. A file system that cannot flush a directory reports EINVAL.
  if (fsync(folder_) != 0 && errno != EINVAL) fail();
}

void AtomicFile::fail() {
  const int error = errno;
  discard();  // the destructor does not run when the constructor throws
  checks::fail(function_, given_path_.c_str(), "a writable file", std::generic_category().message(error));
}

}  // namespace attend::checkpoint
