#include "text/metaspace.h"

#include "text/unicode.h"

namespace attend::text {

Metaspace read_metaspace(const JsonField& field) {
  Metaspace metaspace;
  metaspace.replacement = utf8(field.at("replacement").code_point());
  metaspace.split = field.boolean_or("split", true);
  const auto scheme = field.string_or("prepend_scheme", "always");
  if (scheme == "first") {
    metaspace.prepend = Metaspace::Prepend::first;
  } else if (scheme == "never") {
    metaspace.prepend = Metaspace::Prepend::never;
  } else if (scheme != "always") {
    field.at("prepend_scheme").fail("always, first or never", scheme);
  }
  if (!field.boolean_or("add_prefix_space", true)) {
    if (scheme != "always") field.at("add_prefix_space").fail("true, since there is prepend_scheme", "false");
    metaspace.prepend = Metaspace::Prepend::never;
  }
  return metaspace;
}

}  // namespace attend::text
