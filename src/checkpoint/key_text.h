#pragma once

#include <string>

#include "checkpoint/pickle.h"

namespace attend::checkpoint {

/// Returns the key of a dict as a part of the name of a tensor: text unchanged, and other values as Python
/// prints them, such as 3, 0.5, (1, 'a') or torch.float32. Fails for a value that Python prints with its
/// address, for an integer of more than 255 bytes, and if the text exceeds `limit`.
std::string key_text(const Source& source, const Value& key, uint64_t limit);

}  // namespace attend::checkpoint
