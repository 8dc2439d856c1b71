#pragma once

// The choice of the backend that serves a call. A new backend needs a folder with its implementation; in
// backend.cpp, its conditions and a row in the candidates of each family that it serves; and a case where
// `attention` or `linear_attention` calls the chosen backend.

#include <attend/backend.h>

#include "core/attention_call.h"
#include "functional/linear_attention_arguments.h"

namespace attend {

/// Throws an error of `function` unless `backend` is a value of the enumeration.
void check_backend(const char* function, Backend backend);

/// Returns the backend for a call, and the refusals of the backends that were considered before: the
/// requested backend, or for `automatic` the first that can serve the call. If the requested backend cannot
/// serve the call, it is refused and the reference is chosen.
Explanation explain_backend(const AttentionCall& call, Backend requested);
Explanation explain_backend(const LinearAttentionArguments& arguments, Backend requested);

/// Returns the backend that `explain_backend` chooses. If the requested backend cannot serve the call, throws
/// an error of `function` that states the reason.
Backend choose_backend(const char* function, const AttentionCall& call, Backend requested);
Backend choose_backend(const char* function, const LinearAttentionArguments& arguments, Backend requested);

}  // namespace attend
