#include "random_features.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/diagonal.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/zeros.h>
#include <attend/linear_attention.h>

#include <algorithm>
#include <cmath>

#include "checks.h"

namespace attend {
namespace {

/// Beyond it exp would leave float32's range; e^80 is about 5e34.
constexpr double kMostLowered = 80;

/// w_m x' - |x'|^2 / 2 with x' = sqrt(scale) x.
at::Tensor exponents(const at::Tensor& x, const at::Tensor& projection, double scale) {
  const auto scaled = x * std::sqrt(scale);
  return at::matmul(scaled, projection.transpose(0, 1)) - scaled.square().sum(-1, /*keepdim=*/true) / 2;
}

/// The largest of each head, within limits; a constant to differentiation, since it cancels.
at::Tensor largest_of_head(const at::Tensor& exponents) {
  if (exponents.numel() == 0)
    return at::zeros({exponents.size(0), exponents.size(1), 1, 1}, exponents.options());
  return at::clamp(at::amax(exponents.detach(), {2, 3}, /*keepdim=*/true), -kMostLowered, kMostLowered);
}

/// Keys past their lengths are not read, and don't count as the largest.
at::Tensor exponents_of_key(const at::Tensor& key, const at::Tensor& projection, const at::Tensor& lengths,
                            double scale) {
  if (!lengths.defined()) return exponents(key, projection, scale);
  const auto position = at::arange(key.size(2), lengths.options()).view({1, 1, -1, 1});
  const auto is_past = (position >= lengths.view({-1, 1, 1, 1})).to(key.device());
  return exponents(key.masked_fill(is_past, 0), projection, scale).masked_fill(is_past, -kMostLowered);
}

}  // namespace

RandomFeatures random_features(const at::Tensor& query, const at::Tensor& key, const at::Tensor& projection,
                               const at::Tensor& lengths, double scale, bool normalize, bool lowers_keys) {
  auto of_query = exponents(query, projection, scale);
  auto of_key = exponents_of_key(key, projection, lengths, scale);
  // The factor of a query cancels with that of its normaliser.
  if (normalize && of_query.numel() != 0) of_query = of_query - at::amax(of_query.detach(), {-1}, true);
  const auto lowered =
      lowers_keys ? largest_of_head(of_key) : at::zeros({key.size(0), key.size(1), 1, 1}, key.options());
  const double factor = 1 / std::sqrt(static_cast<double>(projection.size(0)));
  return {at::exp(of_query) * factor, at::exp(of_key - lowered) * factor, lowered};
}

at::Tensor orthogonal_projection(int64_t num_features, int64_t head_dim,
                                 const std::optional<at::Generator>& generator) {
  const auto check = [](const char* argument, int64_t number) {
    if (number < 1)
      checks::fail("orthogonal_projection", argument, "a number of at least 1", c10::str(number));
  };
  check("num_features", num_features);
  check("head_dim", head_dim);
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const int64_t blocks = (num_features + head_dim - 1) / head_dim;
  // The signs make the rotations uniform: those that a QR decomposition leaves are its algorithm's.
  const auto [q, r] = at::linalg_qr(at::randn({blocks, head_dim, head_dim}, generator, options));
  const auto signs = at::sign(at::diagonal(r, 0, -2, -1)).unsqueeze(-2);
  const auto directions = (q * signs).transpose(-2, -1).reshape({-1, head_dim}).slice(0, 0, num_features);
  const auto gaussian = at::randn({num_features, head_dim}, generator, options);
  const auto lengths = at::linalg_vector_norm(gaussian, 2, at::IntArrayRef{1}, /*keepdim=*/true);
  return (directions * lengths).to(at::kFloat);
}

}  // namespace attend
