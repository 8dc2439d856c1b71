#pragma once

#include <string>

#include "text/json_field.h"

namespace attend::text {

/// The settings of Metaspace, which writes spaces as a visible character: SentencePiece's, which is U+2581.
struct Metaspace {
  /// Which texts get a space before them.
  enum class Prepend { always, first, never };

  std::string replacement;
  Prepend prepend = Prepend::always;
  bool split = true;  ///< whether a text is split before each space
};

/// Reads the settings, also those of files from before `prepend_scheme`.
Metaspace read_metaspace(const JsonField& field);

}  // namespace attend::text
