#include "ops/attention_arguments.h"

#include "core/checks.h"
#include "core/torch_private.h"
#include "functional/attention_arguments.h"

namespace attend::ops {
namespace {

Mask to_mask(const AttentionArguments& in) {
  std::optional<Mask> mask;
  const auto restrict = [&mask](const Mask& next) { mask = mask ? *mask & next : next; };
  if (in.is_causal) restrict(causal());
  if (in.window) restrict(window(in.window->at(0), in.window->at(1)));
  if (in.key_lengths.defined()) restrict(key_lengths(in.key_lengths));
  if (in.attn_mask.defined() && !in.has_bias()) restrict(dense(in.attn_mask));
  return mask.value_or(Mask());
}

ScoreMod to_score_mod(const AttentionArguments& in) {
  ScoreMod mod;
  if (in.softcap != 0) mod = mod.then(softcap(in.softcap));
  if (in.alibi_slopes.defined()) mod = mod.then(alibi(in.alibi_slopes));
  if (in.has_bias()) mod = mod.then(bias(in.attn_mask));
  return mod;
}

}  // namespace

std::vector<at::Tensor> AttentionArguments::score_mod_tensors() const {
  std::vector<at::Tensor> tensors;
  if (alibi_slopes.defined()) tensors.push_back(alibi_slopes);
  if (has_bias()) tensors.push_back(attn_mask);
  return tensors;
}

AttentionParams to_params(const char* function, const AttentionArguments& in) {
  // These two checks have no counterpart in C++, where masks and biases are different arguments, and a window
  // is two integers.
  if (in.attn_mask.defined()) {
    const auto dtype = in.attn_mask.scalar_type();
    if (dtype != at::kBool && dtype != at::kFloat && dtype != in.query.scalar_type()) {
      checks::fail(function, "attn_mask",
                   "dtype bool (true = may attend), the query's or float32 (added to the scores)",
                   checks::describe(in.attn_mask));
    }
  }
  if (in.window && in.window->size() != 2) {
    checks::fail(function, "window", "[left, right]", c10::str(at::IntArrayRef(*in.window)));
  }
  AttentionParams params;
  params.mask = to_mask(in);
  params.score_mod = to_score_mod(in);
  params.scale = in.scale;
  params.dropout_p = in.dropout_p;
  if (torch_private::has_transform(in.tensors())) params.backend = Backend::reference;
  return params;
}

AttentionCall to_call(const AttentionArguments& in, const at::Tensor& dropout_seed) {
  constexpr auto kFunction = "attention";
  auto call = with_argument_names(kFunction, [&] {
    return checked_call(kFunction, in.query, in.key, in.value, to_params(kFunction, in));
  });
  call.wants_logsumexp = true;
  if (dropout_seed.defined()) call.dropout_seed = static_cast<uint64_t>(dropout_seed.item<int64_t>());
  return call;
}

}  // namespace attend::ops
