#include "functional/backend.h"

#include <ATen/TensorSubclassLikeUtils.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "autograd/chunked_reference.h"
#include "core/gradients.h"
#include "core/score_mod_node.h"
#include "sdpa/attention.h"

namespace attend {
namespace {

/// A condition that a backend sets, and what is said where it does not hold.
struct Condition {
  const char* reason;
  bool (*holds)(const AttentionCall& call);
};

std::vector<at::Tensor> tensors_of(const AttentionCall& call) {
  std::vector<at::Tensor> tensors = {call.query, call.key, call.value};
  for (const auto& tensor : tensors_of(call.score_mod)) tensors.push_back(tensor);
  return tensors;
}

bool on_cpu(const AttentionCall& call) { return call.query.device().is_cpu(); }

bool without_tangents(const AttentionCall& call) {
  return std::ranges::none_of(tensors_of(call), has_tangent);
}

bool of_plain_tensors(const AttentionCall& call) {
  for (const auto& tensor : tensors_of(call)) {
    if (at::isTensorSubclassLike(tensor)) return false;
  }
  return true;
}

bool on_cpu_or_cuda(const AttentionCall& call) { return on_cpu(call) || call.query.device().is_cuda(); }

bool weighted_by_softmax(const AttentionCall& call) { return call.weighting == Weighting::softmax; }

bool without_logsumexp(const AttentionCall& call) { return !call.wants_logsumexp; }

bool without_sinks(const AttentionCall& call) { return !call.sinks.defined(); }

bool without_dropout(const AttentionCall& call) { return call.dropout_p == 0; }

constexpr std::array<Condition, 3> kFusedConditions = {{
    {"the tensors are not on the CPU", on_cpu},
    {"a tensor carries a forward-mode tangent", without_tangents},
    {"a tensor is of a subclass or under a functional transform", of_plain_tensors},
}};

constexpr std::array<Condition, 9> kSdpaConditions = {{
    {"the tensors are neither on the CPU nor on a CUDA device", on_cpu_or_cuda},
    {"a tensor carries a forward-mode tangent", without_tangents},
    {"a tensor is of a subclass or under a functional transform", of_plain_tensors},
    {"the weighting is not softmax", weighted_by_softmax},
    {"the logsumexp is asked for", without_logsumexp},
    {"there are attention sinks", without_sinks},
    {"dropout drops other weights in ATen", without_dropout},
    {"the score modification is not a bias of the query's dtype", sdpa::can_express_score_mod},
    {"ATen has no fused kernel for it, and would build the scores", sdpa::has_fused_kernel},
}};

/// Why a backend can't serve the call; empty where it can.
std::string refusal(const AttentionCall& call, std::span<const Condition> conditions) {
  for (const auto& condition : conditions) {
    if (!condition.holds(call)) return condition.reason;
  }
  return {};
}

struct Candidate {
  Backend backend;
  std::span<const Condition> conditions;
};

/// The fastest first. The reference serves every call.
constexpr std::array<Candidate, 2> kCandidates = {{
    {Backend::fused, kFusedConditions},
    {Backend::sdpa, kSdpaConditions},
}};

const char* name_of(Backend backend) { return backend == Backend::fused ? "fused" : "sdpa"; }

}  // namespace

Explanation explain_backend(const AttentionCall& call, Backend asked) {
  Explanation explanation{Backend::reference, {}};
  for (const auto& candidate : kCandidates) {
    if (asked != Backend::automatic && asked != candidate.backend) continue;
    const auto reason = refusal(call, candidate.conditions);
    if (reason.empty()) {
      explanation.chosen = candidate.backend;
      break;
    }
    explanation.refused.push_back({candidate.backend, reason});
  }
  return explanation;
}

Backend choose_backend(const char* function, const AttentionCall& call, Backend asked) {
  const auto explanation = explain_backend(call, asked);
  if (asked != Backend::automatic && explanation.chosen != asked) {
    checks::fail(function, "backend", "one that can serve the call",
                 c10::str(name_of(asked), ", which can't: ", explanation.refused.front().reason));
  }
  return explanation.chosen;
}

bool goes_in_chunks(const AttentionCall& call) {
  return autograd::has_many_scores(call) && without_tangents(call) && of_plain_tensors(call);
}

}  // namespace attend
