#pragma once

// Which backend serves a call. A new backend is a folder with its implementation, its conditions and a row in
// the candidates of each family that it serves (backend.cpp), and a case where `attention` or
// `linear_attention` calls the chosen backend.

#include <attend/backend.h>

#include "core/attention_call.h"
#include "functional/linear_attention_arguments.h"

namespace attend {

/// Throws an error of `function` unless `backend` is a value of the enumeration.
void check_backend(const char* function, Backend backend);

/// The backend for a call: the requested one, or for `automatic` the first that can serve the call, and the
/// refusals of those before it. A requested backend that cannot serve the call is refused, and the reference
/// is chosen.
Explanation explain_backend(const AttentionCall& call, Backend requested);
Explanation explain_backend(const LinearAttentionArguments& arguments, Backend requested);

/// The backend that `explain_backend` chooses. Throws an error of `function` that states the reason if the
/// requested backend cannot serve the call.
Backend choose_backend(const char* function, const AttentionCall& call, Backend requested);
Backend choose_backend(const char* function, const LinearAttentionArguments& arguments, Backend requested);

}  // namespace attend
