#pragma once

#include <attend/attention.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/attention_call.h"
#include "core/error_context.h"
#include "ops/dispatch.h"

namespace attend::ops {

/// The parameters that every schema of attention has.
inline const std::string kAttentionSchema =
    "Tensor query, Tensor key, Tensor value, *, Tensor? attn_mask=None, bool is_causal=False, "
    "int[]? window=None, Tensor? key_lengths=None, Tensor? alibi_slopes=None, float softcap=0.0, "
    "float? scale=None, float dropout_p=0.0";

/// The values of these parameters. A tensor that is None in Python is undefined here.
struct AttentionArguments {
  at::Tensor query, key, value, attn_mask;
  bool is_causal;
  std::optional<std::vector<int64_t>> window;
  at::Tensor key_lengths, alibi_slopes;
  double softcap;
  std::optional<double> scale;
  double dropout_p;

  std::vector<at::Tensor> tensors() const {
    return {query, key, value, attn_mask, key_lengths, alibi_slopes};
  }
  /// Returns pointers to the members that are tensors, in the order of `tensors`.
  std::array<at::Tensor*, 6> tensor_members() {
    return {&query, &key, &value, &attn_mask, &key_lengths, &alibi_slopes};
  }

  /// Returns the members in the order of the schema.
  auto as_tuple() const {
    return std::make_tuple(query, key, value, optional_of(attn_mask), is_causal,
                           window ? at::OptionalIntArrayRef(*window) : at::OptionalIntArrayRef(),
                           optional_of(key_lengths), optional_of(alibi_slopes), softcap, scale, dropout_p);
  }

  /// Returns the members that are not tensors, as a value that autograd can save.
  c10::IValue constants() const;
  /// Returns the arguments with these constants and tensors.
  static AttentionArguments from(const c10::IValue& constants, at::ArrayRef<at::Tensor> tensors);

  bool has_bias() const { return attn_mask.defined() && attn_mask.scalar_type() != at::kBool; }

  /// Returns the tensors that can have a gradient: query, key, value, and those of the score modification, in
  /// the order of its gradients.
  std::vector<at::Tensor> inputs() const;
  /// Returns the arguments with the tensors of `inputs` replaced.
  AttentionArguments with_inputs(at::ArrayRef<at::Tensor> inputs) const;
};

/// `call` is `function` with the parameters of an operator's schema: the fields of AttentionArguments one by
/// one, followed by the remaining parameters of `function`.
template <auto function>
struct AttentionOperator;
template <class Result, class... Others, Result (*function)(const AttentionArguments&, Others...)>
struct AttentionOperator<function> {
  static Result call(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     const std::optional<at::Tensor>& attn_mask, bool is_causal,
                     at::OptionalIntArrayRef window, const std::optional<at::Tensor>& key_lengths,
                     const std::optional<at::Tensor>& alibi_slopes, double softcap,
                     std::optional<double> scale, double dropout_p, Others... others) {
    return function({.query = query,
                     .key = key,
                     .value = value,
                     .attn_mask = attn_mask.value_or(at::Tensor()),
                     .is_causal = is_causal,
                     .window = window ? std::optional(window->vec()) : std::nullopt,
                     .key_lengths = key_lengths.value_or(at::Tensor()),
                     .alibi_slopes = alibi_slopes.value_or(at::Tensor()),
                     .softcap = softcap,
                     .scale = scale,
                     .dropout_p = dropout_p},
                    others...);
  }
};

/// Runs a C++ function of attention. In its errors, arguments have the names that they have in the operator.
template <class Function>
auto with_argument_names(const char* function, const Function& run) {
  static constexpr checks::ArgumentName kNames[] = {
      {"mask", "attn_mask"},      {"allowed", "attn_mask"}, {"bias", "attn_mask"},
      {"values", "attn_mask"},    {"left", "window"},       {"right", "window"},
      {"slopes", "alibi_slopes"}, {"cap", "softcap"},       {"lengths", "key_lengths"}};
  return checks::in_function(function, kNames, run);
}

/// Returns the parameters of the C++ function. Throws attend::Error if a value, a dtype or a number of
/// dimensions is wrong.
AttentionParams to_params(const char* function, const AttentionArguments& arguments);

/// Throws an error of `function` if an argument is wrong, as far as it is known: symbolic sizes, and the
/// values of lengths without data, are not checked.
void check_arguments(const char* function, const AttentionArguments& arguments);

/// Returns the arguments converted as by `autocast`.
AttentionArguments with_autocast(AttentionArguments arguments);

/// Returns the checked call. `dropout_seed` is int64 [1], or undefined without dropout.
AttentionCall to_call(const AttentionArguments& arguments, const at::Tensor& dropout_seed);

}  // namespace attend::ops
