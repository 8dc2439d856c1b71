#pragma once

#include "core/mask_node.h"

namespace attend {

/// Fails with an error of `function` if the mask does not fit a call of this shape on this device.
void check_mask(const char* function, const Mask& mask, const ScoreShape& shape, int64_t query_dim,
                at::Device device);

/// The check of each kind of mask except causal and window masks, which fit every call.
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

/// Causal and window masks fit every call.
inline void check(const MaskNode::Causal&, const char*, const ScoreShape&, int64_t, at::Device) {}
inline void check(const MaskNode::Window&, const char*, const ScoreShape&, int64_t, at::Device) {}

}  // namespace attend
