#pragma once

#include <attend/attention.h>

#include <optional>
#include <vector>

#include "core/attention_call.h"
#include "ops/call.h"

namespace attend::ops {

/// What the attention operators are called with; a tensor is undefined where None was given.
struct AttentionArguments {
  static constexpr size_t kPublic = 11;   ///< of a public operator's schema, in its order
  static constexpr size_t kPrivate = 12;  ///< of a private one's, at its beginning

  at::Tensor query, key, value, attn_mask;
  bool is_causal;
  std::optional<std::vector<int64_t>> window;
  at::Tensor key_lengths, alibi_slopes;
  double softcap;
  std::optional<double> scale;
  double dropout_p;
  at::Tensor dropout_seed;  ///< int64 [1]; undefined without dropout, and in public operators

  explicit AttentionArguments(const std::vector<c10::IValue>& values);

  /// As a private operator takes them.
  Stack stack() const;

  /// The tensors in the order of the schema.
  std::vector<at::Tensor> tensors() const;
  /// The reverse.
  void set_tensors(const std::vector<at::Tensor>& tensors);

  bool has_bias() const { return attn_mask.defined() && attn_mask.scalar_type() != at::kBool; }
  /// Those that are added to the scores, in the order in which the score modification has their gradients.
  std::vector<at::Tensor> score_mod_tensors() const;
};

/// Fails, in the name of `function`, where a shape or dtype is wrong. Where sizes are symbols the mask and
/// what is added to the scores are checked once they are numbers.
void check_shapes(const char* function, const AttentionArguments& arguments);

/// What the C++ function takes. Fails, in the name of `function` and its Python arguments, where it can't.
AttentionParams params_of(const char* function, const AttentionArguments& arguments);

/// The checked call, with its seed.
AttentionCall call_of(const AttentionArguments& arguments);

}  // namespace attend::ops
