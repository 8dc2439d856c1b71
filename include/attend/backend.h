#pragma once

#include <string>
#include <vector>

namespace attend {

/// The implementation that computes a call of `attention` or `linear_attention`. All backends give the same
/// results up to rounding.
enum class Backend {
  automatic,  ///< the fastest that can serve the call; never an error
  /// The library's kernels for the CPU; O(L) memory, and fully masked tiles of scores are skipped.
  fused,
  /// at::scaled_dot_product_attention, where it has a fused kernel and can express the call; softmax
  /// attention only.
  sdpa,
  /// Plain ATen operations, on any device, with every derivative that ATen has. Attention with many scores is
  /// computed for one chunk of queries at a time; linear attention is computed in chunks of 64 steps.
  reference,
};

/// Which backend serves a call, and why.
struct Explanation {
  /// A backend that cannot serve the call.
  struct Refusal {
    Backend backend;     ///< the backend that was considered
    std::string reason;  ///< the property of the call that the backend does not support
  };
  Backend chosen;                       ///< the backend that serves the call; never `automatic`
  std::vector<Refusal> refused;         ///< the backends that were considered before `chosen`, in order
  std::vector<std::string> notes = {};  ///< the properties of the call that make the chosen backend slow
};

}  // namespace attend
