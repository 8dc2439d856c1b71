#include "ops/linear_attention_arguments.h"

#include "core/checks.h"
#include "functional/linear_attention_arguments.h"

namespace attend::ops {
namespace {

FeatureMap to_feature_map(const std::string& name) {
  if (name == "elu_plus_one") return FeatureMap::elu_plus_one;
  if (name == "relu") return FeatureMap::relu;
  if (name == "identity") return FeatureMap::identity;
  checks::fail("linear_attention", "feature_map", "elu_plus_one, relu or identity", name);
}

}  // namespace

std::vector<at::Tensor> LinearArguments::inputs() const {
  std::vector<at::Tensor> given;
  for (const auto& tensor : tensors()) {
    if (tensor.defined()) given.push_back(tensor);
  }
  return given;
}

LinearArguments LinearArguments::with_inputs(at::ArrayRef<at::Tensor> inputs) const {
  auto in = *this;
  const auto* next = inputs.begin();
  for (auto* tensor : in.tensor_members()) {
    if (tensor->defined()) *tensor = *next++;
  }
  return in;
}

c10::IValue LinearArguments::constants() const {
  return constants_of(feature_map, normalize, is_causal, scale);
}

LinearArguments LinearArguments::from(const c10::IValue& constants, at::ArrayRef<at::Tensor> tensors) {
  const auto values = constants.toListRef();
  LinearArguments in{.query = {},
                     .key = {},
                     .value = {},
                     .feature_map = values[0].toStringRef(),
                     .normalize = values[1].toBool(),
                     .is_causal = values[2].toBool(),
                     .log_decay = {},
                     .beta = {},
                     .initial_state = {},
                     .scale = values[3].toOptional<double>()};
  const auto members = in.tensor_members();
  for (size_t n = 0; n < members.size(); ++n) *members.at(n) = tensors[n];
  return in;
}

LinearAttentionParams to_params(const LinearArguments& in) {
  return {.feature_map = to_feature_map(in.feature_map),
          .normalize = in.normalize,
          .is_causal = in.is_causal,
          .log_decay = in.log_decay,
          .beta = in.beta,
          .scale = in.scale,
          .initial_state = in.initial_state};
}

LinearAttentionCall to_call(const LinearArguments& in) {
  return checked_arguments("linear_attention", in.query, in.key, in.value, to_params(in)).call;
}

LinearArguments with_autocast(LinearArguments arguments) {
  autocast(arguments.tensor_members());
  return arguments;
}

}  // namespace attend::ops
