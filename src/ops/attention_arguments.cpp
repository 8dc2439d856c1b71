#include "ops/attention_arguments.h"

#include "core/checks.h"
#include "core/inputs.h"
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

c10::IValue AttentionArguments::constants() const {
  const bool has_window = window.has_value();
  return constants_of(is_causal, has_window, has_window ? window->at(0) : 0, has_window ? window->at(1) : 0,
                      softcap, scale, dropout_p);
}

AttentionArguments AttentionArguments::from(const c10::IValue& constants, at::ArrayRef<at::Tensor> tensors) {
  const auto values = constants.toListRef();
  const bool has_window = values[1].toBool();
  AttentionArguments in{
      .query = {},
      .key = {},
      .value = {},
      .attn_mask = {},
      .is_causal = values[0].toBool(),
      .window = has_window ? std::optional(std::vector<int64_t>{values[2].toInt(), values[3].toInt()})
                           : std::nullopt,
      .key_lengths = {},
      .alibi_slopes = {},
      .softcap = values[4].toDouble(),
      .scale = values[5].toOptional<double>(),
      .dropout_p = values[6].toDouble()};
  const auto members = in.tensor_members();
  for (size_t n = 0; n < members.size(); ++n) *members.at(n) = tensors[n];
  return in;
}

std::vector<at::Tensor> AttentionArguments::inputs() const {
  std::vector<at::Tensor> inputs = {query, key, value};
  if (alibi_slopes.defined()) inputs.push_back(alibi_slopes);
  if (has_bias()) inputs.push_back(attn_mask);
  return inputs;
}

AttentionArguments AttentionArguments::with_inputs(at::ArrayRef<at::Tensor> inputs) const {
  auto in = *this;
  const bool has_slopes = alibi_slopes.defined();
  in.query = inputs[0];
  in.key = inputs[1];
  in.value = inputs[2];
  if (has_slopes) in.alibi_slopes = inputs[3];
  if (has_bias()) in.attn_mask = inputs[has_slopes ? 4 : 3];
  return in;
}

AttentionArguments with_autocast(AttentionArguments arguments) {
  autocast(arguments.tensor_members());
  return arguments;
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
  return params;
}

void check_arguments(const char* function, const AttentionArguments& arguments) {
  auto in = arguments;
  // The values of lengths on the meta device are not read.
  if (in.key_lengths.defined() && in.query.is_meta()) in.key_lengths = in.key_lengths.to(at::kMeta);
  with_argument_names(function, [&] {
    if (torch_private::has_symbolic_sizes(in.tensors())) {
      check_inputs(function, in.query, in.key, in.value);
      to_params(function, in);
    } else {
      checked_call(function, in.query, in.key, in.value, to_params(function, in));
    }
  });
}

AttentionCall to_call(const AttentionArguments& in, const at::Tensor& dropout_seed) {
  constexpr auto kFunction = "attention";
  auto call = with_argument_names(kFunction, [&] {
    return checked_call(kFunction, in.query, in.key, in.value, to_params(kFunction, in));
  });
  call.wants_logsumexp = true;
  call.dropout_seed = dropout_seed;
  return call;
}

}  // namespace attend::ops
