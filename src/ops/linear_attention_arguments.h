#pragma once

#include <attend/linear_attention.h>

#include <array>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "core/linear_attention_call.h"
#include "ops/dispatch.h"

namespace attend::ops {

/// The parameters that every schema of linear attention has.
inline const std::string kLinearSchema =
    "Tensor query, Tensor key, Tensor value, *, str feature_map=\"elu_plus_one\", bool normalize=True, "
    "bool is_causal=False, Tensor? log_decay=None, Tensor? beta=None, Tensor? initial_state=None, "
    "float? scale=None";

/// The values of these parameters. A tensor that is None in Python is undefined here.
struct LinearArguments {
  at::Tensor query, key, value;
  std::string feature_map;
  bool normalize, is_causal;
  at::Tensor log_decay, beta, initial_state;
  std::optional<double> scale;

  std::vector<at::Tensor> tensors() const { return {query, key, value, log_decay, beta, initial_state}; }
  /// Returns pointers to the members that are tensors, in the order of `tensors`.
  std::array<at::Tensor*, 6> tensor_members() {
    return {&query, &key, &value, &log_decay, &beta, &initial_state};
  }
  /// Returns the tensors that are given, all of which can have a gradient.
  std::vector<at::Tensor> inputs() const;
  /// Returns the arguments with the tensors of `inputs` replaced.
  LinearArguments with_inputs(at::ArrayRef<at::Tensor> inputs) const;

  /// Returns the members that are not tensors, as a value that autograd can save.
  c10::IValue constants() const;
  /// Returns the arguments with these constants and tensors.
  static LinearArguments from(const c10::IValue& constants, at::ArrayRef<at::Tensor> tensors);

  /// Returns the members in the order of the schema.
  auto as_tuple() const {
    return std::make_tuple(query, key, value, c10::string_view(feature_map), normalize, is_causal,
                           optional_of(log_decay), optional_of(beta), optional_of(initial_state), scale);
  }
};

/// `call` is `function` with the parameters of an operator's schema: the fields of LinearArguments one by
/// one, followed by the remaining parameters of `function`.
template <auto function>
struct LinearOperator;
template <class Result, class... Others, Result (*function)(const LinearArguments&, Others...)>
struct LinearOperator<function> {
  static Result call(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                     c10::string_view feature_map, bool normalize, bool is_causal,
                     const std::optional<at::Tensor>& log_decay, const std::optional<at::Tensor>& beta,
                     const std::optional<at::Tensor>& initial_state, std::optional<double> scale,
                     Others... others) {
    return function({.query = query,
                     .key = key,
                     .value = value,
                     .feature_map = std::string(feature_map),
                     .normalize = normalize,
                     .is_causal = is_causal,
                     .log_decay = log_decay.value_or(at::Tensor()),
                     .beta = beta.value_or(at::Tensor()),
                     .initial_state = initial_state.value_or(at::Tensor()),
                     .scale = scale},
                    others...);
  }
};

/// Returns the parameters of the C++ function. Throws attend::Error if the feature map is unknown.
LinearAttentionParams to_params(const LinearArguments& arguments);

/// Returns the checked call. Throws attend::Error if an argument is wrong.
LinearAttentionCall to_call(const LinearArguments& arguments);

/// Returns the arguments converted as by `autocast`.
LinearArguments with_autocast(LinearArguments arguments);

}  // namespace attend::ops
