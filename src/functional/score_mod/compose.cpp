#include <attend/score_mod.h>

#include <algorithm>
#include <utility>

#include "core/score_mod_node.h"

namespace attend {
namespace {

using cpu::Tile;

class BoundThen final : public BoundScoreMod {
 public:
  BoundThen(std::unique_ptr<BoundScoreMod> first, std::unique_ptr<BoundScoreMod> second,
            size_t tensors_of_first)
      : first_(std::move(first)), second_(std::move(second)), tensors_of_first_(tensors_of_first) {}

  bool shares_gradients_over_batch() const override {
    return first_->shares_gradients_over_batch() || second_->shares_gradients_over_batch();
  }
  bool shares_gradients_over_heads() const override {
    return first_->shares_gradients_over_heads() || second_->shares_gradients_over_heads();
  }
  bool reads_scores() const override { return first_->reads_scores() || second_->reads_scores(); }
  void want_gradients(at::ArrayRef<bool> wanted) override {
    first_->want_gradients(wanted.slice(0, tensors_of_first_));
    second_->want_gradients(wanted.slice(tensors_of_first_));
  }
  void begin_backward(int64_t splits, bool visits_all) override {
    first_->begin_backward(splits, visits_all);
    second_->begin_backward(splits, visits_all);
  }
  std::vector<at::Tensor> gradients() const override {
    auto all = first_->gradients();
    for (auto& gradient : second_->gradients()) all.push_back(std::move(gradient));
    return all;
  }

  void forward(const Tile& tile, float* scores, int64_t stride) const override {
    apply(tile, scores, stride);
  }
  void forward(const Tile& tile, double* scores, int64_t stride) const override {
    apply(tile, scores, stride);
  }
  void backward(const Tile& tile, int64_t task, const float* scores, float* gradients,
                int64_t stride) const override {
    reverse(tile, task, scores, gradients, stride);
  }
  void backward(const Tile& tile, int64_t task, const double* scores, double* gradients,
                int64_t stride) const override {
    reverse(tile, task, scores, gradients, stride);
  }

 private:
  template <typename T>
  void apply(const Tile& tile, T* scores, int64_t stride) const {
    first_->forward(tile, scores, stride);
    second_->forward(tile, scores, stride);
  }

  template <typename T>
  void reverse(const Tile& tile, int64_t task, const T* scores, T* gradients, int64_t stride) const {
    if (second_->reads_scores()) {
      second_->backward(tile, task, between(tile, scores, stride).data(), gradients, stride);
    } else {
      second_->backward(tile, task, scores, gradients, stride);
    }
    first_->backward(tile, task, scores, gradients, stride);
  }

  /// The scores between the two, computed again.
  template <typename T>
  std::vector<T> between(const Tile& tile, const T* scores, int64_t stride) const {
    std::vector<T> copy(static_cast<size_t>(tile.keys * stride));
    for (int64_t j = 0; j < tile.keys; ++j) {
      std::copy_n(scores + j * stride, tile.queries, copy.data() + j * stride);
    }
    first_->forward(tile, copy.data(), stride);
    return copy;
  }

  std::unique_ptr<BoundScoreMod> first_, second_;
  size_t tensors_of_first_;
};

class Then final : public ScoreModNode {
 public:
  Then(std::shared_ptr<const ScoreModNode> first, std::shared_ptr<const ScoreModNode> second)
      : first_(std::move(first)), second_(std::move(second)) {}

  void check(const char* function, const ScoreShape& shape, const at::Tensor& query) const override {
    first_->check(function, shape, query);
    second_->check(function, shape, query);
  }

  at::Tensor apply(const at::Tensor& scores, const ScoreShape& shape, int64_t query_dim) const override {
    return second_->apply(first_->apply(scores, shape, query_dim), shape, query_dim);
  }

  std::vector<at::Tensor> tensors() const override {
    auto all = first_->tensors();
    for (auto& tensor : second_->tensors()) all.push_back(std::move(tensor));
    return all;
  }

  std::shared_ptr<const ScoreModNode> with_tensors(at::TensorList tensors) const override {
    const size_t of_first = first_->tensors().size();
    return std::make_shared<Then>(first_->with_tensors(tensors.slice(0, of_first)),
                                  second_->with_tensors(tensors.slice(of_first)));
  }

  std::unique_ptr<BoundScoreMod> bind(const ScoreShape& shape, int64_t query_dim,
                                      at::ScalarType compute_type) const override {
    return std::make_unique<BoundThen>(first_->bind(shape, query_dim, compute_type),
                                       second_->bind(shape, query_dim, compute_type),
                                       first_->tensors().size());
  }

 private:
  std::shared_ptr<const ScoreModNode> first_, second_;
};

}  // namespace

ScoreMod ScoreMod::then(const ScoreMod& next) const {
  if (!defined()) return next;
  if (!next.defined()) return *this;
  return ScoreMod(std::make_shared<Then>(node_, next.node_));
}

}  // namespace attend
