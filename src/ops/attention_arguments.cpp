#include "ops/attention_arguments.h"

#include <cmath>
#include <limits>

#include "core/inputs.h"

namespace attend::ops {
namespace {

using checks::describe;
using checks::fail;

ScoreShape score_shape(const AttentionArguments& in) {
  const auto query = with_heads(in.query);
  return {query.size(0), query.size(1), query.size(2), in.key.size(-2)};
}

void check_mask(const char* function, const AttentionArguments& in) {
  constexpr auto kName = "attn_mask";
  checks::is_strided(function, kName, in.attn_mask);
  const auto dtype = in.attn_mask.scalar_type();
  if (dtype != at::kBool && dtype != at::kFloat && dtype != in.query.scalar_type()) {
    fail(function, kName, "dtype bool (true = may attend), the query's or float32 (added to the scores)",
         describe(in.attn_mask));
  }
  checks::on_device(function, kName, in.attn_mask, in.query.device());
  checks::broadcastable(function, kName, in.attn_mask, score_shape(in), in.query.dim());
}

void check_lengths(const char* function, const AttentionArguments& in) {
  constexpr auto kName = "key_lengths";
  checks::is_strided(function, kName, in.key_lengths);
  const auto dtype = in.key_lengths.scalar_type();
  const int64_t batch = score_shape(in).batch;
  if ((dtype != at::kLong && dtype != at::kInt) || in.key_lengths.sizes() != at::IntArrayRef({batch})) {
    fail(function, kName, c10::str("int64 or int32 [B] = [", batch, "]"), describe(in.key_lengths));
  }
}

void check_slopes(const char* function, const AttentionArguments& in) {
  constexpr auto kName = "alibi_slopes";
  checks::is_strided(function, kName, in.alibi_slopes);
  const auto dtype = in.alibi_slopes.scalar_type();
  if (dtype != at::kFloat && dtype != in.query.scalar_type()) {
    fail(function, kName, "the query's dtype or float32", describe(in.alibi_slopes));
  }
  checks::on_device(function, kName, in.alibi_slopes, in.query.device());
  const auto shape = score_shape(in);
  const auto sizes = in.alibi_slopes.sizes();
  if (sizes != at::IntArrayRef({shape.heads}) && sizes != at::IntArrayRef({shape.batch, shape.heads})) {
    fail(function, kName,
         c10::str("[H] = [", shape.heads, "] or [B, H] = [", shape.batch, ", ", shape.heads, "]"),
         describe(in.alibi_slopes));
  }
}

void check_numbers(const char* function, const AttentionArguments& in) {
  if (in.window) {
    const auto& window = *in.window;
    if (window.size() != 2 || window[0] < -1 || window[1] < -1) {
      fail(function, "window", "[left, right], each -1 (unbounded) or more",
           c10::str(at::IntArrayRef(window)));
    }
  }
  using Float = std::numeric_limits<float>;
  if (in.softcap != 0 && !(in.softcap >= Float::min() && in.softcap <= Float::max())) {
    fail(function, "softcap", "0 (none) or a positive number in the range of float32", c10::str(in.softcap));
  }
}

Mask mask_of(const AttentionArguments& in) {
  std::optional<Mask> mask;
  const auto join = [&mask](const Mask& next) { mask = mask ? *mask & next : next; };
  if (in.is_causal) join(causal());
  if (in.window) join(window(in.window->at(0), in.window->at(1)));
  if (in.key_lengths.defined()) join(key_lengths(in.key_lengths));
  if (in.attn_mask.defined() && !in.has_bias()) join(dense(in.attn_mask));
  return mask.value_or(Mask());
}

ScoreMod score_mod_of(const AttentionArguments& in) {
  ScoreMod mod;
  if (in.softcap != 0) mod = mod.then(softcap(in.softcap));
  if (in.alibi_slopes.defined()) mod = mod.then(alibi(in.alibi_slopes));
  if (in.has_bias()) mod = mod.then(bias(in.attn_mask));
  return mod;
}

}  // namespace

AttentionArguments::AttentionArguments(const std::vector<c10::IValue>& values)
    : query(values.at(0).toTensor()),
      key(values.at(1).toTensor()),
      value(values.at(2).toTensor()),
      attn_mask(tensor_or_undefined(values.at(3))),
      is_causal(values.at(4).toBool()),
      window(values.at(5).toOptional<std::vector<int64_t>>()),
      key_lengths(tensor_or_undefined(values.at(6))),
      alibi_slopes(tensor_or_undefined(values.at(7))),
      softcap(values.at(8).toDouble()),
      scale(values.at(9).toOptional<double>()),
      dropout_p(values.at(10).toDouble()),
      dropout_seed(values.size() > kPublic ? tensor_or_undefined(values[kPublic]) : at::Tensor()) {}

Stack AttentionArguments::stack() const {
  return {query,
          key,
          value,
          tensor_or_none(attn_mask),
          is_causal,
          window,
          tensor_or_none(key_lengths),
          tensor_or_none(alibi_slopes),
          softcap,
          scale,
          dropout_p,
          tensor_or_none(dropout_seed)};
}

std::vector<at::Tensor> AttentionArguments::tensors() const {
  return {query, key, value, attn_mask, key_lengths, alibi_slopes, dropout_seed};
}

void AttentionArguments::set_tensors(const std::vector<at::Tensor>& tensors) {
  query = tensors.at(0);
  key = tensors.at(1);
  value = tensors.at(2);
  attn_mask = tensors.at(3);
  key_lengths = tensors.at(4);
  alibi_slopes = tensors.at(5);
  dropout_seed = tensors.at(6);
}

std::vector<at::Tensor> AttentionArguments::score_mod_tensors() const {
  std::vector<at::Tensor> tensors;
  if (alibi_slopes.defined()) tensors.push_back(alibi_slopes);
  if (has_bias()) tensors.push_back(attn_mask);
  return tensors;
}

void check_shapes(const char* function, const AttentionArguments& arguments) {
  check_inputs(function, arguments.query, arguments.key, arguments.value);
  check_numbers(function, arguments);
  if (has_symbolic_sizes(arguments.tensors())) return;
  if (arguments.attn_mask.defined()) check_mask(function, arguments);
  if (arguments.key_lengths.defined()) check_lengths(function, arguments);
  if (arguments.alibi_slopes.defined()) check_slopes(function, arguments);
}

AttentionParams params_of(const char* function, const AttentionArguments& arguments) {
  check_shapes(function, arguments);
  AttentionParams params;
  params.mask = mask_of(arguments);
  params.score_mod = score_mod_of(arguments);
  params.scale = arguments.scale;
  params.dropout_p = arguments.dropout_p;
  if (is_transformed(arguments.tensors())) params.backend = Backend::reference;
  return params;
}

AttentionCall call_of(const AttentionArguments& in) {
  constexpr auto kFunction = "attention";
  auto call = checked_call(kFunction, in.query, in.key, in.value, params_of(kFunction, in));
  call.wants_logsumexp = true;
  if (in.dropout_seed.defined()) call.dropout_seed = static_cast<uint64_t>(in.dropout_seed.item<int64_t>());
  return call;
}

}  // namespace attend::ops
