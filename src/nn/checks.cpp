#include "nn/checks.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>

#include "core/checks.h"
#include "core/gradients.h"

namespace attend::nn {
namespace {

/// Whether autocast would convert the tensor for ATen's operations.
bool is_cast(const at::Tensor& tensor) {
  const auto device = tensor.device().type();
  return at::isFloatingType(tensor.scalar_type()) && tensor.scalar_type() != at::kDouble &&
         at::autocast::is_autocast_available(device) && at::autocast::is_autocast_enabled(device);
}

}  // namespace

void check_input(const char* module, const char* argument, const at::Tensor& tensor, int64_t width,
                 const FirstInput& first, const at::Tensor& parameter) {
  checks::check_strided(module, argument, tensor);
  const int64_t dim = first.tensor.dim(), batch_dim = first.batch_first ? 0 : 1;
  const auto* const batched = first.batch_first ? "[B, L, " : "[L, B, ";
  const bool has_rank = (tensor.dim() == 2 || tensor.dim() == 3) && tensor.dim() == dim;
  if (!has_rank || tensor.size(-1) != width) {
    checks::fail(module, argument,
                 dim == 2   ? c10::str("[L, ", width, "]")
                 : dim == 3 ? c10::str(batched, width, "]")
                            : c10::str(batched, width, "] or [L, ", width, "]"),
                 checks::describe(tensor));
  }
  if (dim == 3 && tensor.size(batch_dim) != first.tensor.size(batch_dim)) {
    checks::fail(module, argument,
                 c10::str("the batch size of ", first.name, ", ", first.tensor.size(batch_dim)),
                 checks::describe(tensor));
  }
  if (tensor.device() != parameter.device()) {
    checks::fail(module, argument, c10::str("a tensor on the parameters' device ", parameter.device()),
                 c10::str(tensor.device()));
  }
  if (tensor.scalar_type() != parameter.scalar_type() && !(is_cast(tensor) && is_cast(parameter))) {
    checks::fail(module, argument,
                 c10::str("the parameters' dtype ", checks::dtype_name(parameter.scalar_type())),
                 checks::describe(tensor));
  }
}

at::ScalarType linear_dtype(const at::Tensor& weight) {
  return is_cast(weight) ? at::autocast::get_autocast_dtype(weight.device().type()) : weight.scalar_type();
}

void check_no_gradient(const char* name, const torch::nn::Module& module, at::TensorList inputs) {
  if (!at::GradMode::is_enabled()) return;
  if (!any_needs_gradient(inputs) && !any_needs_gradient(module.parameters())) return;
  checks::fail(name, "cache", "no gradients while it is appended to (use torch::NoGradGuard)",
               "an input or a parameter that requires one");
}

void check_option(const char* module, const char* option, bool fits) {
  if (fits) return;
  checks::fail(module, option, "the value at construction, which the parameters fit", "another value");
}

void check_width(const char* module, const char* argument, int64_t width) {
  if (width < 1) checks::fail(module, argument, "a width of at least 1", c10::str(width));
}

void check_probability(const char* module, const char* argument, double probability) {
  if (!(probability >= 0 && probability <= 1)) {
    checks::fail(module, argument, "a probability in [0, 1]", c10::str(probability));
  }
}

void check_query_key(const char* module, const at::Tensor& q, int64_t d_q, const at::Tensor& k, int64_t d_k,
                     const at::Tensor& parameter) {
  check_input(module, "q", q, d_q, {"q", q}, parameter);
  check_input(module, "k", k, d_k, {"q", q}, parameter);
}

void check_value(const char* module, const at::Tensor& v, const at::Tensor& q, const at::Tensor& k,
                 const at::Tensor& parameter) {
  checks::check_strided(module, "v", v);
  check_input(module, "v", v, v.dim() == 0 ? 0 : v.size(-1), {"q", q}, parameter);
  if (v.size(-2) != k.size(-2)) {
    checks::fail(module, "v", c10::str("the length of k, ", k.size(-2)), checks::describe(v));
  }
}

}  // namespace attend::nn
