#include <attend/error.h>

#include <utility>

namespace attend {
namespace {

std::string message(const std::string& function, const std::string& path, const std::string& argument,
                    const std::string& expected, const std::string& got) {
  return c10::str("attend::", function, ": ", path, path.empty() ? "" : ": ", argument, ": expected ",
                  expected, ", got ", got);
}

std::string joined(const std::string& outer, const std::string& inner) {
  return outer.empty() || inner.empty() ? outer + inner : outer + "." + inner;
}

}  // namespace

Error::Error(std::string function, std::string argument, std::string expected, std::string got)
    : c10::Error({__func__, __FILE__, static_cast<uint32_t>(__LINE__)},
                 message(function, {}, argument, expected, got)),
      function_(std::move(function)),
      argument_(std::move(argument)),
      expected_(std::move(expected)),
      got_(std::move(got)) {}

Error::Error(const Error& inner, std::string function, std::string path, std::string argument)
    : c10::Error(message(function, path, argument, inner.expected_, inner.got_), inner.backtrace(),
                 inner.caller()),
      function_(std::move(function)),
      path_(std::move(path)),
      argument_(std::move(argument)),
      expected_(inner.expected_),
      got_(inner.got_) {}

Error::~Error() = default;

Error Error::raised_in(std::string function, const std::string& path, std::string argument) const {
  return {*this, std::move(function), joined(path, path_), std::move(argument)};
}

}  // namespace attend
