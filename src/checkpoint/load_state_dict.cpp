#include <ATen/TensorOperators.h>
#include <attend/checkpoint.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <unordered_map>

#include "core/checks.h"

namespace attend {
namespace {

/// Returns the lines of an error message that list keys of one kind; empty if there are no keys.
std::string key_list(const char* title, const std::vector<std::string>& keys) {
  constexpr size_t kMaxListed = 10;  // all keys of a large model would bury the rest of the message
  if (keys.empty()) return {};
  std::string text = c10::str("\n  ", title, ":");
  const size_t listed = std::min(keys.size(), kMaxListed);
  for (size_t n = 0; n < listed; ++n) text += "\n    " + keys[n];
  if (listed < keys.size()) text += c10::str("\n    and ", keys.size() - listed, " more");
  return text;
}

/// Whether the values of a tensor can be converted to the dtype.
bool can_convert(const at::Tensor& tensor, at::ScalarType dtype) {
  constexpr auto kPacked = at::ScalarType::Float4_e2m1fn_x2;
  if ((tensor.scalar_type() == kPacked || dtype == kPacked) && tensor.scalar_type() != dtype) return false;
  return tensor.is_complex() == c10::isComplexType(dtype);
}

/// Returns the values of a sparse or quantized tensor as a dense tensor.
at::Tensor dense(const at::Tensor& tensor) {
  const auto values = tensor.is_quantized() ? tensor.dequantize() : tensor;
  return values.layout() == at::kStrided ? values : values.to_dense();
}

struct KeyMatch {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  ///< (tensor of the module, loaded tensor)
  std::vector<std::string> shape_mismatches, dtype_mismatches, duplicates;
  LoadReport report;
};

KeyMatch match_keys(const StateDict& own, const StateDict& loaded, const LoadParams& params) {
  KeyMatch match;
  std::unordered_map<std::string, at::Tensor> loaded_by_name;
  for (const auto& item : loaded.tensors) {
    const auto name = params.key_mapping ? params.key_mapping(item.key()) : item.key();
    if (!own.tensors.contains(name)) match.report.unexpected_keys.push_back(name);
    if (!loaded_by_name.emplace(name, item.value()).second) match.duplicates.push_back(name);
  }
  const auto mismatch = [](const auto& item, const at::Tensor& found) {
    return c10::str(item.key(), ": expected ", checks::describe(item.value()), ", got ",
                    checks::describe(found));
  };
  for (const auto& item : own.tensors) {
    const auto found = loaded_by_name.find(item.key());
    if (found == loaded_by_name.end()) {
      match.report.missing_keys.push_back(item.key());
    } else if (found->second.sizes() != item.value().sizes() ||
               !can_convert(found->second, item.value().scalar_type())) {
      match.shape_mismatches.push_back(mismatch(item, found->second));
    } else if (!params.convert_dtype && found->second.scalar_type() != item.value().scalar_type()) {
      match.dtype_mismatches.push_back(mismatch(item, found->second));
    } else {
      match.pairs.emplace_back(item.value(), found->second);
    }
  }
  return match;
}

}  // namespace

StateDict state_dict(const torch::nn::Module& module) {
  StateDict result;
  for (const auto& item : module.named_parameters()) {
    if (item.value().defined()) result.tensors.insert(item.key(), item.value().detach());
  }
  for (const auto& item : module.named_buffers()) {
    if (item.value().defined()) result.tensors.insert(item.key(), item.value().detach());
  }
  return result;
}

LoadReport load_state_dict(torch::nn::Module& module, const StateDict& loaded, const LoadParams& params) {
  auto [pairs, shape_mismatches, dtype_mismatches, duplicates, report] =
      match_keys(state_dict(module), loaded, params);
  std::string problems;
  if (params.strict) {
    problems =
        key_list("Missing keys", report.missing_keys) + key_list("Unexpected keys", report.unexpected_keys);
  }
  problems += key_list("Shape mismatches", shape_mismatches);
  problems += key_list("Dtype mismatches", dtype_mismatches);
  problems += key_list("Duplicate keys after key_mapping", duplicates);
  if (!problems.empty()) {
    checks::fail("load_state_dict", "state_dict",
                 (params.convert_dtype ? "the keys and shapes of the module "
                                       : "the keys, shapes and dtypes of the module ") +
                     module.name(),
                 "differences:" + problems);
  }
  const at::NoGradGuard no_grad;
  for (auto& [own, source] : pairs) source = dense(source);
  for (auto& [own, source] : pairs) own.copy_(source);
  return report;
}

}  // namespace attend
