// The operators for Python: torch.ops.load_library("libattend.so"), then torch.ops.attend.attention(...).
//
// attn_mask is boolean (true = may attend) or floating (added, differentiable) and broadcasts to [B, H, Lq,
// Lk]; is_causal is bottom-right; window is [left, right]; key_lengths is int64 or int32 [B]; alibi_slopes is
// [H] or [B, H] and adds -slope * |i + Lk - Lq - j|; softcap c > 0 makes a score c * tanh(score / c). The
// order is scale, softcap, alibi, attn_mask as bias, then the masks. Everything else is as in
// attend/attention.h and attend/linear_attention.h.
#include <torch/library.h>

#include <string>

#include "ops/attention.h"
#include "ops/linear_attention.h"

namespace attend::ops {
namespace {

const std::string kAttention =
    "(Tensor query, Tensor key, Tensor value, *, Tensor? attn_mask=None, bool is_causal=False, "
    "int[]? window=None, Tensor? key_lengths=None, Tensor? alibi_slopes=None, float softcap=0.0, "
    "float? scale=None, float dropout_p=0.0";
const std::string kLinearAttention =
    "(Tensor query, Tensor key, Tensor value, *, str feature_map=\"elu_plus_one\", bool normalize=True, "
    "bool is_causal=False, Tensor? log_decay=None, Tensor? beta=None, Tensor? initial_state=None, "
    "float? scale=None";

const std::vector<at::Tag> kTags = {at::Tag::pt2_compliant_tag};
const std::vector<at::Tag> kSeeded = {at::Tag::pt2_compliant_tag, at::Tag::nondeterministic_seeded};

void define(torch::Library& library, const std::string& schema, const std::vector<at::Tag>& tags) {
  library.def(torch::schema(schema.c_str()), tags);
}

template <c10::KernelFunction::BoxedKernelFunction* kernel>
void implement(torch::Library& library, const char* name) {
  library.impl(name, torch::CppFunction::makeFromBoxedFunction<kernel>());
}

TORCH_LIBRARY(attend, library) {
  define(library, "attention" + kAttention + ") -> Tensor", kSeeded);
  define(library, "attention_with_lse" + kAttention + ") -> (Tensor output, Tensor logsumexp)", kSeeded);
  define(library, "linear_attention" + kLinearAttention + ") -> (Tensor output, Tensor final_state)", kTags);

  // Private: what a traced graph holds.
  define(library,
         "_attention_forward" + kAttention +
             ", Tensor? dropout_seed=None) -> (Tensor output, Tensor logsumexp, Tensor logsumexp_rest)",
         kTags);
  define(library,
         "_attention_backward" + kAttention +
             ", Tensor? dropout_seed=None, Tensor output, Tensor logsumexp, Tensor logsumexp_rest, "
             "Tensor? grad_output, Tensor? grad_logsumexp) -> (Tensor query, Tensor key, Tensor value, "
             "Tensor alibi_slopes, Tensor attn_mask)",
         kTags);
  define(library, "_linear_attention_forward" + kLinearAttention + ") -> (Tensor output, Tensor final_state)",
         kTags);
  define(library,
         "_linear_attention_backward" + kLinearAttention +
             ", Tensor? grad_output, Tensor? grad_final_state) -> (Tensor query, Tensor key, "
             "Tensor value, Tensor log_decay, Tensor beta, Tensor initial_state)",
         kTags);
}

void implement_public(torch::Library& library) {
  implement<attention>(library, "attention");
  implement<attention_with_lse>(library, "attention_with_lse");
  implement<linear_attention>(library, "linear_attention");
}

void implement_autocast(torch::Library& library) {
  for (const auto* name : {"attention", "attention_with_lse", "linear_attention"}) {
    implement<autocast>(library, name);
  }
}

// One implementation for all: it has its own autograd, and is decomposed under vmap.
TORCH_LIBRARY_IMPL(attend, Autograd, library) { implement_public(library); }
TORCH_LIBRARY_IMPL(attend, CUDA, library) { implement_public(library); }
TORCH_LIBRARY_IMPL(attend, FuncTorchBatchedDecomposition, library) { implement_public(library); }

TORCH_LIBRARY_IMPL(attend, CPU, library) {
  implement_public(library);
  implement<attention_forward_cpu>(library, "_attention_forward");
  implement<attention_backward_cpu>(library, "_attention_backward");
  implement<linear_attention_forward_cpu>(library, "_linear_attention_forward");
  implement<linear_attention_backward_cpu>(library, "_linear_attention_backward");
}

TORCH_LIBRARY_IMPL(attend, Meta, library) {
  implement_public(library);
  implement<attention_forward_meta>(library, "_attention_forward");
  implement<attention_backward_meta>(library, "_attention_backward");
  implement<linear_attention_forward_meta>(library, "_linear_attention_forward");
  implement<linear_attention_backward_meta>(library, "_linear_attention_backward");
}

TORCH_LIBRARY_IMPL(attend, AutocastCPU, library) { implement_autocast(library); }
TORCH_LIBRARY_IMPL(attend, AutocastCUDA, library) { implement_autocast(library); }

}  // namespace
}  // namespace attend::ops
