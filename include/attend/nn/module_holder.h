#pragma once

#include <torch/nn/pimpl.h>

#include <memory>
#include <tuple>
#include <utility>

namespace attend {
namespace detail {

/// Provides operator() for every number of leading arguments of a function forward(Given..., Others...). The
/// default arguments of `forward` complete a shorter list.
template <typename Holder, typename Result, typename Given, typename... Others>
class CallOperators;

template <typename Holder, typename Result, typename... Given>
class CallOperators<Holder, Result, std::tuple<Given...>> {
 public:
  Result operator()(Given... given) {
    return static_cast<Holder&>(*this)->forward(std::forward<Given>(given)...);
  }
};

template <typename Holder, typename Result, typename... Given, typename Next, typename... Others>
class CallOperators<Holder, Result, std::tuple<Given...>, Next, Others...>
    : public CallOperators<Holder, Result, std::tuple<Given..., Next>, Others...> {
 public:
  using CallOperators<Holder, Result, std::tuple<Given..., Next>, Others...>::operator();
  Result operator()(Given... given) {
    return static_cast<Holder&>(*this)->forward(std::forward<Given>(given)...);
  }
};

template <typename Holder, typename Result, typename Impl, typename... Arguments>
CallOperators<Holder, Result, std::tuple<>, Arguments...> call_operators(
    Result (Impl::*forward)(Arguments...));

}  // namespace detail

namespace nn {

/// A shared pointer to a module, used like the holders of `torch::nn`. Unlike in those holders, the
/// parameters of operator() have the types of the parameters of `forward`, so that arguments may be given in
/// braces: `attention(x, {}, {}, {.cache = &cache})`.
template <typename ModuleImpl>
class Holder : public torch::nn::ModuleHolder<ModuleImpl>,
               public decltype(detail::call_operators<Holder<ModuleImpl>>(&ModuleImpl::forward)) {
 public:
  /// The type of the module.
  using Impl = ModuleImpl;
  using torch::nn::ModuleHolder<ModuleImpl>::ModuleHolder;
  using decltype(detail::call_operators<Holder<ModuleImpl>>(&ModuleImpl::forward))::operator();
};

}  // namespace nn
}  // namespace attend
