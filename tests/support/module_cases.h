#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <functional>
#include <string>

#include "recorded.h"
#include "support.h"

namespace attend::testing {

inline double size_of(const torch::Tensor& exact) { return std::max(1.0, exact.abs().max().item<double>()); }

inline bool is_gradient(const std::string& name) { return name.starts_with("grad."); }

/// Returns the largest error of Python in a dtype, relative to the size of the result, over all outputs or
/// over all gradients of a case. The error of a single result with few elements would be a matter of chance.
inline double plain_error(const Recorded& recorded, bool for_gradients, int64_t dtype) {
  const std::string prefix = "error.";
  double largest = 0;
  for (const auto& [name, errors] : recorded) {
    if (!name.starts_with(prefix)) continue;
    const auto result = name.substr(prefix.size());
    if (is_gradient(result) != for_gradients) continue;
    largest = std::max(largest, errors[dtype].item<double>() / size_of(recorded.at(result)));
  }
  return largest;
}

/// Compares a module, in each dtype, with Python's module of the same state in float64: the results of
/// `call`, the gradients of the parameters, and the gradients of the inputs that have a recorded gradient.
/// The errors of Python's module in narrower dtypes are part of the record.
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
      const bool for_gradients = is_gradient(name);
      const double factor = for_gradients ? 3 : 2, size = size_of(recorded.at(name));
      if (dtype == torch::kDouble) {
        // In float64 the error is taken to be that in float32 times 2^-29, both for this library and for the
        // record.
        const double error = 0x1p-29 * plain_error(recorded, for_gradients, /*dtype=*/0);
        expect_as_accurate(result, error * size, recorded.at(name), factor + 1, name);
      } else {
        const double error = plain_error(recorded, for_gradients, static_cast<int64_t>(n));
        expect_as_accurate(result, error * size, recorded.at(name), factor, name);
      }
    }
  }
}

}  // namespace attend::testing
