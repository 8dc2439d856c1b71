#pragma once

#include <cstddef>
#include <string>

namespace attend::checkpoint {

/// A file that takes the place of `path` once it is whole and on the disk; before that it lies beside it
/// under another name, and goes where it is given up. Errors are thrown in the name of `function`.
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
  void give_up();
  [[noreturn]] void fail();

  const char* function_;
  std::string asked_;      ///< as the caller named it
  std::string path_;       ///< what a link of that name points to
  std::string temporary_;  ///< empty once the file is in its place
  int file_ = -1, folder_ = -1;
};

}  // namespace attend::checkpoint
