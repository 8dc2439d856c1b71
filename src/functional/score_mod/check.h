#pragma once

#include "core/checks.h"
#include "core/score_mod_node.h"

namespace attend {

/// Fails with an error of `function` if the score modification does not fit scores of this shape and this
/// query.
void check_score_mod(const char* function, const ScoreMod& score_mod, const ScoreShape& shape,
                     const at::Tensor& query);

/// The check of each kind of score modification except softcap, which fits every call.
void check(const ScoreModNode::Alibi& alibi, const char* function, const ScoreShape& shape,
           const at::Tensor& query);
void check(const ScoreModNode::Bias& bias, const char* function, const ScoreShape& shape,
           const at::Tensor& query);
void check(const ScoreModNode::RelativeBias& relative_bias, const char* function, const ScoreShape& shape,
           const at::Tensor& query);
void check(const ScoreModNode::Lambda& lambda, const char* function, const ScoreShape& shape,
           const at::Tensor& query);
void check(const ScoreModNode::Composed& composed, const char* function, const ScoreShape& shape,
           const at::Tensor& query);

/// A softcap fits every call.
inline void check(const ScoreModNode::Softcap&, const char*, const ScoreShape&, const at::Tensor&) {}

/// Fails unless the tensor is on the query's device and has the query's dtype or float32.
void check_beside_query(const char* function, const char* argument, const at::Tensor& tensor,
                        const at::Tensor& query);

}  // namespace attend
