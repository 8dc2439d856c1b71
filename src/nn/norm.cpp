#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <attend/nn/norm.h>

#include <ostream>

#include "core/checks.h"
#include "nn/checks.h"
#include "nn/rms_norm.h"

namespace attend::nn {

NormImpl::NormImpl(const NormOptions& options_) : options(options_) { reset(); }

void NormImpl::reset() {
  check_width("nn::Norm", "width", options.width());
  if (!(options.eps() >= 0)) checks::fail("nn::Norm", "eps", "at least 0", c10::str(options.eps()));
  weight = register_parameter("weight", at::ones({options.width()}));
  if (options.bias() && options.kind() == NormKind::layer_norm) {
    bias = register_parameter("bias", at::zeros({options.width()}));
  }
}

void NormImpl::pretty_print(std::ostream& stream) const {
  stream << "attend::nn::Norm(" << (options.kind() == NormKind::rms_norm ? "rms_norm" : "layer_norm") << ", "
         << options.width() << ", eps=" << options.eps() << ")";
}

torch::Tensor NormImpl::forward(const torch::Tensor& x) {
  return options.kind() == NormKind::rms_norm
             ? rms_norm(x, weight, options.eps())
             : at::layer_norm(x, {options.width()}, weight, bias, options.eps());
}

}  // namespace attend::nn
