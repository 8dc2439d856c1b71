#pragma once

#include <cstddef>
#include <string>

namespace attend::checkpoint {

/// Replaces the file at `path` atomically: `write` goes to a temporary file in the same folder, which
/// `commit` flushes to the disk and renames to `path`. Without a commit, the destructor deletes it. Errors
/// name `function`.
class AtomicFile {
 public:
  AtomicFile(const char* function, const std::string& path);
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  void write(const void* data, size_t size);
  void commit();

 private:
  void open_temporary();
  void discard();
  [[noreturn]] void fail();

  const char* function_;
  std::string given_path_;  ///< for errors
  std::string path_;        ///< after following symbolic links
  std::string temporary_;   ///< empty after the commit
  int file_ = -1, folder_ = -1;
};

}  // namespace attend::checkpoint
