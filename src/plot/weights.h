#pragma once

#include <attend/plot.h>

#include <cstdint>

namespace attend::plot {

/// Checks the arguments of a picture of attention weights, and returns the weights as uint8 [layers, H, Lq,
/// Lk], contiguous on the CPU: weights from 0 to 1 become 0 to 255. Errors begin with the name `function`.
at::Tensor weights_as_bytes(const char* function, const at::Tensor& weights, const PlotLabels& labels,
                            int64_t min_dim, int64_t max_dim);

}  // namespace attend::plot
