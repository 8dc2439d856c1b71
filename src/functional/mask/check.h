#pragma once

#include "core/mask_node.h"

namespace attend {

/// Fails, in the name of `function`, where the mask does not fit a call of this shape on this device.
void check_mask(const char* function, const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                at::Device device);

/// The checks of the kinds of mask that can fail to fit a call.
void check(const MaskNode::KeyLengths& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device);
void check(const MaskNode::Prefix& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device);
void check(const MaskNode::Documents& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device);
void check(const MaskNode::Dense& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device);
void check(const MaskNode::Lambda& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device);
void check(const MaskNode::Both& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device);
void check(const MaskNode::Not& mask, const char* function, const ScoreShape& shape, int64_t query_dim,
           at::Device device);

/// These fit every call.
inline void check(const MaskNode::Causal&, const char*, const ScoreShape&, int64_t, at::Device) {}
inline void check(const MaskNode::Window&, const char*, const ScoreShape&, int64_t, at::Device) {}

}  // namespace attend
