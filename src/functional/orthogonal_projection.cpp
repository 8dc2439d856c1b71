#include <ATen/TensorOperators.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sign.h>
#include <attend/linear_attention.h>

#include "core/checks.h"
#include "core/exact_dtype.h"

namespace attend {
namespace {

void check_at_least_one(const char* argument, int64_t number) {
  if (number < 1) checks::fail("orthogonal_projection", argument, "at least 1", c10::str(number));
}

}  // namespace

at::Tensor orthogonal_projection(int64_t num_features, int64_t head_dim,
                                 const std::optional<at::Generator>& generator) {
  check_at_least_one("num_features", num_features);
  check_at_least_one("head_dim", head_dim);
  const ExactDtype exact;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const int64_t blocks = (num_features + head_dim - 1) / head_dim;
  // The signs of the columns of Q depend on the QR algorithm. Multiplied by the signs of R's diagonal, Q is
  // uniform among the orthogonal matrices.
  const auto [q, r] = at::linalg_qr(at::randn({blocks, head_dim, head_dim}, generator, options));
  const auto signs = at::sign(at::diagonal(r, 0, -2, -1)).unsqueeze(-2);
  const auto directions = (q * signs).transpose(-2, -1).reshape({-1, head_dim}).slice(0, 0, num_features);
  const auto gaussian = at::randn({num_features, head_dim}, generator, options);
  const auto lengths = at::linalg_vector_norm(gaussian, 2, at::IntArrayRef{1}, /*keepdim=*/true);
  return (directions * lengths).to(at::kFloat);
}

}  // namespace attend
