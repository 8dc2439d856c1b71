#include "backend.h"

#include <ATen/TensorSubclassLikeUtils.h>

#include <array>
#include <string>
#include <vector>

#include "score_mod_node.h"

namespace attend {
namespace {

/// A condition that a backend sets, and what is said where it does not hold.
struct Condition {
  const char* reason;
  bool (*holds)(const AttentionCall& call);
};

std::vector<at::Tensor> tensors_of(const AttentionCall& call) {
  std::vector<at::Tensor> tensors = {call.query, call.key, call.value};
  if (call.score_mod.defined()) {
    for (const auto& tensor : call.score_mod.node()->tensors()) tensors.push_back(tensor);
  }
  return tensors;
}

bool on_cpu(const AttentionCall& call) { return call.query.device().is_cpu(); }

bool without_tangents(const AttentionCall& call) {
  for (const auto& tensor : tensors_of(call)) {
    if (tensor._fw_grad(/*level=*/0).defined()) return false;
  }
  return true;
}

bool of_plain_tensors(const AttentionCall& call) {
  for (const auto& tensor : tensors_of(call)) {
    if (at::isTensorSubclassLike(tensor)) return false;
  }
  return true;
}

constexpr std::array<Condition, 3> kFusedConditions = {{
    {"the tensors are not on the CPU", on_cpu},
    {"a tensor carries a forward-mode tangent", without_tangents},
    {"a tensor is of a subclass or under a functional transform", of_plain_tensors},
}};

/// Why the fused kernel can't serve the call; empty where it can.
std::string refusal_of_fused(const AttentionCall& call) {
  for (const auto& condition : kFusedConditions) {
    if (!condition.holds(call)) return condition.reason;
  }
  return {};
}

}  // namespace

Explanation explain_backend(const AttentionCall& call, Backend asked) {
  if (asked == Backend::reference) return {Backend::reference, {}};
  const auto refusal = refusal_of_fused(call);
  if (refusal.empty()) return {Backend::fused, {}};
  return {Backend::reference, {{Backend::fused, refusal}}};
}

Backend choose_backend(const char* function, const AttentionCall& call, Backend asked) {
  const auto explanation = explain_backend(call, asked);
  if (asked == Backend::fused && explanation.chosen != asked) {
    checks::fail(function, "backend", "one that can serve the call",
                 c10::str("fused, which can't: ", explanation.refused.front().reason));
  }
  return explanation.chosen;
}

}  // namespace attend
