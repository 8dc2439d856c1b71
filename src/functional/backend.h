#pragma once

#include "core/attention_call.h"

namespace attend {

/// The backend for a call: the one that was asked for, or with `automatic` the first that can serve it.
/// Fails, in the name of `function`, where the one that was asked for can't, with the reason.
Backend choose_backend(const char* function, const AttentionCall& call, Backend asked);

/// What `choose_backend` decides, and why.
Explanation explain_backend(const AttentionCall& call, Backend asked);

/// Whether the reference is to go over the queries in chunks: where there are many scores, and nothing that
/// needs the graph of the whole (a forward-mode tangent, a transform).
bool goes_in_chunks(const AttentionCall& call);

}  // namespace attend
