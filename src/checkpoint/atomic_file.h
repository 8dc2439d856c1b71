#pragma once

#include <cstddef>
#include <string>

namespace attend::checkpoint {

/// Replaces the file at `path` atomically: `write` writes to a temporary file in the same folder, which
/// `commit` flushes to the disk and renames to `path`. Without a commit, the destructor deletes the temporary
/// file. Errors begin with the name `function`.
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
  std::string given_path_;  ///< the path as given, for error messages
  std::string path_;        ///< the path after symbolic links were followed
  std::string temporary_;   ///< the path of the temporary file; empty after the commit
  int file_ = -1, folder_ = -1;
};

}  // namespace attend::checkpoint
