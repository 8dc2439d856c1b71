#include "functional/backend.h"

#include <algorithm>
#include <array>
#include <string>

#include "core/checks.h"
#include "core/gradients.h"
#include "core/torch_private.h"
#include "sdpa/attention.h"

namespace attend {
namespace {

/// A condition of a backend, and the reason for the refusal if the condition does not hold.
template <typename Call>
struct Condition {
  const char* reason;
  bool (*holds)(const Call& call);
};

// ---- conditions on the tensors of any call

at::Device device_of(const AttentionCall& call) { return call.query.device(); }
at::Device device_of(const LinearAttentionArguments& arguments) { return arguments.call.query.device(); }

template <typename Call>
bool is_on_cpu(const Call& call) {
  return device_of(call).is_cpu();
}

template <typename Call>
bool is_on_cpu_or_cuda(const Call& call) {
  return device_of(call).is_cpu() || device_of(call).is_cuda();
}

template <typename Call>
bool has_no_tangent(const Call& call) {
  return std::ranges::none_of(call.tensors(), has_tangent);
}

template <typename Call>
bool has_plain_tensors(const Call& call) {
  return std::ranges::none_of(call.tensors(), torch_private::is_subclass_like);
}

template <typename Call>
constexpr Condition<Call> kOnCpu = {"the tensors are not on the CPU", is_on_cpu<Call>};
template <typename Call>
constexpr Condition<Call> kOnCpuOrCuda = {"the tensors are neither on the CPU nor on a CUDA device",
                                          is_on_cpu_or_cuda<Call>};
template <typename Call>
constexpr Condition<Call> kNoTangent = {"a tensor carries a forward-mode tangent", has_no_tangent<Call>};
template <typename Call>
constexpr Condition<Call> kPlainTensors = {"a tensor is of a subclass or under a functional transform",
                                           has_plain_tensors<Call>};

// ---- conditions on calls of softmax attention

bool is_softmax(const AttentionCall& call) { return call.weighting == Weighting::softmax; }
bool has_no_logsumexp(const AttentionCall& call) { return !call.wants_logsumexp; }
bool has_no_sinks(const AttentionCall& call) { return !call.sinks.defined(); }
bool has_no_dropout(const AttentionCall& call) { return call.dropout_p == 0; }

// ---- conditions on calls of linear attention

bool is_never_linear(const LinearAttentionArguments&) { return false; }

// ---- the candidates of each family, the fastest first; the reference serves every call

template <typename Call>
struct Candidate {
  Backend backend;
  c10::ArrayRef<Condition<Call>> conditions;
};

c10::ArrayRef<Candidate<AttentionCall>> candidates(const AttentionCall&) {
  using Call = AttentionCall;
  static constexpr std::array kFused = {kOnCpu<Call>, kNoTangent<Call>, kPlainTensors<Call>};
  static constexpr std::array kSdpa = {
      kOnCpuOrCuda<Call>,
      kNoTangent<Call>,
      kPlainTensors<Call>,
      Condition<Call>{"the weighting is not softmax", is_softmax},
      Condition<Call>{"the logsumexp is requested", has_no_logsumexp},
      Condition<Call>{"there are attention sinks", has_no_sinks},
      Condition<Call>{"ATen's dropout drops other weights", has_no_dropout},
      Condition<Call>{"the score modification is not a bias of the query's dtype",
                      sdpa::can_express_score_mod},
      Condition<Call>{"ATen has no fused kernel for the call and would build all scores",
                      sdpa::has_fused_kernel},
  };
  static const std::array<Candidate<Call>, 2> all = {{{Backend::fused, kFused}, {Backend::sdpa, kSdpa}}};
  return all;
}

c10::ArrayRef<Candidate<LinearAttentionArguments>> candidates(const LinearAttentionArguments&) {
  using Call = LinearAttentionArguments;
  static constexpr std::array kFused = {kOnCpu<Call>, kNoTangent<Call>, kPlainTensors<Call>};
  static constexpr std::array kSdpa = {
      Condition<Call>{"at::scaled_dot_product_attention computes softmax attention only", is_never_linear}};
  static const std::array<Candidate<Call>, 2> all = {{{Backend::fused, kFused}, {Backend::sdpa, kSdpa}}};
  return all;
}

// ---- the choice

const char* backend_name(Backend backend) {
  switch (backend) {
    case Backend::fused:
      return "fused";
    case Backend::sdpa:
      return "sdpa";
    case Backend::reference:
      return "reference";
    case Backend::automatic:
      break;
  }
  return "automatic";
}

template <typename Call>
Explanation explain(const Call& call, Backend requested) {
  Explanation explanation{.chosen = Backend::reference, .refused = {}};
  for (const auto& candidate : candidates(call)) {
    if (requested != Backend::automatic && requested != candidate.backend) continue;
    const auto* violated = std::ranges::find_if(
        candidate.conditions, [&](const Condition<Call>& condition) { return !condition.holds(call); });
    if (violated == candidate.conditions.end()) {
      explanation.chosen = candidate.backend;
      break;
    }
    explanation.refused.push_back({.backend = candidate.backend, .reason = violated->reason});
  }
  return explanation;
}

template <typename Call>
Backend choose(const char* function, const Call& call, Backend requested) {
  const auto explanation = explain_backend(call, requested);
  if (requested != Backend::automatic && explanation.chosen != requested) {
    checks::fail(function, "backend", "a backend that can serve the call",
                 c10::str(backend_name(requested), ", which cannot: ", explanation.refused.front().reason));
  }
  return explanation.chosen;
}

}  // namespace

void check_backend(const char* function, Backend backend) {
  if (backend < Backend::automatic || backend > Backend::reference) {
    checks::fail(function, "backend", "automatic, fused, sdpa or reference",
                 c10::str(static_cast<int64_t>(backend)));
  }
}

Explanation explain_backend(const AttentionCall& call, Backend requested) {
  auto explanation = explain(call, requested);
  if (explanation.chosen == Backend::reference && call.dropout_p > 0 && !is_on_cpu(call)) {
    explanation.notes.emplace_back(
        "the dropout factors of all scores are computed by operations on integers");
  }
  return explanation;
}

Explanation explain_backend(const LinearAttentionArguments& arguments, Backend requested) {
  return explain(arguments, requested);
}

Backend choose_backend(const char* function, const AttentionCall& call, Backend requested) {
  return choose(function, call, requested);
}

Backend choose_backend(const char* function, const LinearAttentionArguments& arguments, Backend requested) {
  return choose(function, arguments, requested);
}

}  // namespace attend
