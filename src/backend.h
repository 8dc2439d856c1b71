#pragma once

#include "attention_call.h"

namespace attend {

/// The backend for a call: the one that was asked for, or with `automatic` the first that can serve it.
/// Fails, in the name of `function`, where the one that was asked for can't, with the reason.
Backend choose_backend(const char* function, const AttentionCall& call, Backend asked);

/// What `choose_backend` decides, and why.
Explanation explain_backend(const AttentionCall& call, Backend asked);

}  // namespace attend
