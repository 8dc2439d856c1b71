#pragma once

#include <attend/text/tokenizer.h>

#include "text/pipeline.h"

namespace attend::text {

/// What copies of a tokenizer share.
struct Tokenizer::Parts : Pipeline {};

}  // namespace attend::text
