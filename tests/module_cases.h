#pragma once

#include <torch/torch.h>

#include <array>
#include <functional>
#include <string>

#include "recorded.h"
#include "support.h"

namespace attend::testing {

/// Compares a module, in each dtype, with what Python's module of the same state computed in float64: what
/// `call` returns, and the gradients of the parameters and of every input that the record has one for.
/// Python's errors in the narrower dtypes are recorded beside that.
inline void expect_as_recorded(torch::nn::Module& module, const Recorded& recorded,
                               const std::function<Recorded(const Recorded& inputs)>& call) {
  constexpr std::array kDtypes = {torch::kFloat, torch::kBFloat16, torch::kHalf, torch::kDouble};
  for (size_t n = 0; n < kDtypes.size(); ++n) {
    const auto dtype = kDtypes[n];
    SCOPED_TRACE(torch::toString(dtype));
    module.to(dtype);
    module.zero_grad();
    {
      const torch::NoGradGuard no_grad;
      for (auto& parameter : module.named_parameters()) parameter.value().copy_(recorded.at(parameter.key()));
    }
    Recorded inputs;
    for (const auto& [name, tensor] : recorded) {
      inputs[name] = tensor.is_floating_point() ? tensor.to(dtype) : tensor;
      if (recorded.contains("grad." + name)) inputs[name] = inputs[name].detach().clone().requires_grad_();
    }
    auto results = call(inputs);
    results.at("output").backward(inputs.at("grad_output"));
    for (const auto& parameter : module.named_parameters())
      results["grad." + parameter.key()] = parameter.value().grad();
    for (const auto& [name, tensor] : inputs) {
      const auto gradient = "grad." + name;
      if (recorded.contains(gradient) && !results.contains(gradient)) results[gradient] = tensor.grad();
    }
    for (const auto& [name, result] : results) {
      const auto& errors = recorded.at("error." + name);
      const double factor = name.starts_with("grad.") ? 3 : 2;
      if (dtype == torch::kDouble) {
        // Python's roundings are those of float32 by 2^-29, and the record itself has them here.
        const double plain_error = 0x1p-29 * errors[0].item<double>();
        expect_as_accurate(result, plain_error, recorded.at(name), factor + 1, name);
      } else {
        const double plain_error = errors[static_cast<int64_t>(n)].item<double>();
        expect_as_accurate(result, plain_error, recorded.at(name), factor, name);
      }
    }
  }
}

}  // namespace attend::testing
