#include <ATen/TensorOperators.h>
#include <attend/checkpoint.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <unordered_map>

#include "checkpoint/mapped_file.h"
#include "core/checks.h"

namespace attend {
namespace {

/// Whether `part` stands at `at` in `name` as a run of whole components.
bool stands_at(const std::string& name, size_t at, const std::string& part) {
  const size_t end = at + part.size();
  return name.compare(at, part.size(), part) == 0 && (at == 0 || name[at - 1] == '.') &&
         (end == name.size() || (end < name.size() && name[end] == '.'));
}

std::string renamed(std::string name, const Rename& rule) {
  const bool at_start = rule.from.starts_with('^');
  const auto part = rule.from.substr(at_start ? 1 : 0);
  if (part.empty()) return at_start && !rule.to.empty() ? rule.to + "." + name : name;
  for (size_t at = 0; at + part.size() <= name.size();) {
    if (stands_at(name, at, part)) {
      const bool takes_dot = rule.to.empty() && at + part.size() < name.size();
      name.replace(at, part.size() + (takes_dot ? 1 : 0), rule.to);
      if (rule.to.empty() && !takes_dot && at > 0) name.erase(at - 1);
      at += rule.to.size();
    } else {
      ++at;
    }
    if (at_start) break;
  }
  return name;
}

std::string renamed(std::string name, const std::vector<Rename>& rules) {
  for (const auto& rule : rules) name = renamed(std::move(name), rule);
  return name;
}

constexpr size_t kMostListed = 10;  // a whole model's would hide what the error says

std::string list(const char* title, const std::vector<std::string>& names) {
  if (names.empty()) return {};
  std::string text = c10::str("\n  ", title, ":");
  const size_t listed = std::min(names.size(), kMostListed);
  for (size_t n = 0; n < listed; ++n) text += "\n    " + names[n];
  if (listed < names.size()) text += c10::str("\n    and ", names.size() - listed, " more");
  return text;
}

struct Match {
  std::vector<std::pair<at::Tensor, at::Tensor>> pairs;  ///< of the module, of the checkpoint
  std::vector<std::string> misshapen, ambiguous;
  LoadReport report;
};

Match match(const Checkpoint& own, const Checkpoint& checkpoint, const std::vector<Rename>& rules) {
  Match match;
  std::unordered_map<std::string, at::Tensor> found;
  for (const auto& item : checkpoint.tensors) {
    const auto name = renamed(item.key(), rules);
    if (!own.tensors.contains(name)) match.report.unexpected.push_back(name);
    if (!found.emplace(name, item.value()).second) match.ambiguous.push_back(name);
  }
  for (const auto& item : own.tensors) {
    const auto source = found.find(item.key());
    if (source == found.end()) {
      match.report.missing.push_back(item.key());
    } else if (source->second.sizes() != item.value().sizes() ||
               source->second.is_complex() != item.value().is_complex()) {
      match.misshapen.push_back(c10::str(item.key(), ": expected ", checks::describe(item.value()), ", got ",
                                         checks::describe(source->second)));
    } else {
      match.pairs.emplace_back(item.value(), source->second);
    }
  }
  return match;
}

}  // namespace

Checkpoint state_dict(const torch::nn::Module& module) {
  Checkpoint checkpoint;
  for (const auto& item : module.named_parameters()) {
    if (item.value().defined()) checkpoint.tensors.insert(item.key(), item.value().detach());
  }
  for (const auto& item : module.named_buffers()) {
    if (item.value().defined()) checkpoint.tensors.insert(item.key(), item.value().detach());
  }
  return checkpoint;
}

LoadReport load_into(torch::nn::Module& module, const Checkpoint& checkpoint, const LoadOptions& options) {
  auto [pairs, misshapen, ambiguous, report] = match(state_dict(module), checkpoint, options.rename);
  auto problems = list("misshapen", misshapen) + list("twice after renaming", ambiguous);
  if (options.strict)
    problems = list("missing", report.missing) + list("unexpected", report.unexpected) + problems;
  if (!problems.empty()) {
    checks::fail("load_into", "checkpoint", "the tensors of the module " + module.name(),
                 "others:" + problems);
  }
  const at::NoGradGuard no_grad;
  for (auto& [own, loaded] : pairs) own.copy_(loaded);
  return report;
}

}  // namespace attend
