#pragma once

#include <string>

#include "checkpoint/pickle.h"

namespace attend::checkpoint {

/// The key of a dict as a part of a tensor's name: text as it is, and other values as Python prints them,
/// such as 3, 0.5, (1, 'a') or torch.float32. Fails for what Python prints by its address, for integers of
/// more than 255 bytes, and if the text exceeds `limit`.
std::string key_text(const Source& source, const Value& key, uint64_t limit);

}  // namespace attend::checkpoint
