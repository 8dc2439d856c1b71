"""Derivatives of derivatives and torch.func over the operators: tangents on gradients, batched gradients, vmap, compiled
transforms, dropout under transforms, autocast under vmap, compiled autograd. The expected values are those of the equations in
plain float64 operations of torch, or of the same operators slice by slice."""

import math
import unittest

import torch
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from support import leaves

ops = torch.ops.attend

BATCH, HEADS, LENGTH, D = 2, 2, 7, 4


def equations(query, key, value, attn_mask=None):
    """Causal softmax attention."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        scores = scores + attn_mask
    hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(hidden, -math.inf), -1) @ value


def linear_equations(query, key, value, log_decay=None):
    """Causal linear attention with phi(x) = elu(x) + 1 and normalisation."""
    phi = lambda x: torch.where(x > 0, x + 1, x.clamp(max=0).exp())
    similarity = phi(query) @ phi(key).transpose(-1, -2)
    if log_decay is not None:
        sums = log_decay.cumsum(-1)
        similarity = similarity * (sums[..., :, None] - sums[..., None, :]).exp()
    similarity = similarity * torch.ones(similarity.shape[-2:], dtype=similarity.dtype).tril()
    return similarity @ value / similarity.sum(-1, keepdim=True)


def attention(query, key, value, attn_mask=None):
    return ops.attention(query, key, value, attn_mask=attn_mask, is_causal=True)


def linear_attention(query, key, value, log_decay=None):
    return ops.linear_attention(query, key, value, is_causal=True, log_decay=log_decay)[0]


def with_lse(query, key, value, attn_mask=None):
    output, logsumexp = ops.attention_with_lse(query, key, value, attn_mask=attn_mask, is_causal=True)
    return output * logsumexp[..., None]


def lse_equations(query, key, value, attn_mask=None):
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        scores = scores + attn_mask
    scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -math.inf)
    return torch.softmax(scores, -1) @ value * torch.logsumexp(scores, -1)[..., None]


def with_state(query, key, value, log_decay=None):
    """Not causal: every query reads the final state, which also is a result."""
    output, state = ops.linear_attention(query, key, value, normalize=False, feature_map="identity", scale=1.0)
    return output * state.sum((-2, -1), keepdim=True)


def state_equations(query, key, value, log_decay=None):
    state = key.transpose(-1, -2) @ value
    return query @ state * state.sum((-2, -1), keepdim=True)


PAIRS = {"attention": (attention, equations), "attention_with_lse": (with_lse, lse_equations),
         "linear_attention": (linear_attention, linear_equations), "not causal": (with_state, state_equations)}


def inputs(length=LENGTH, count=3, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(BATCH, HEADS, length, D, dtype=torch.float64).to(dtype) for _ in range(count)]


class Calls(TorchDispatchMode):
    """Records the names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


class TangentOnGradient(unittest.TestCase):
    def tangent(self, function, mode=None):
        """The tangent of the gradient of sin(function(x, x, x) W) with respect to x, along a change of W alone."""
        x, = leaves(inputs(count=1))
        w, along = (t[0, 0, :D] for t in inputs(length=D, count=2))
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(w, along)
            gradient, = torch.autograd.grad((function(x, x, x) @ dual).sin().sum(), x)
            return forward_ad.unpack_dual(gradient)

    def test_tangent(self):
        for name, (ours, exact) in PAIRS.items():
            with self.subTest(name):
                (gradient, tangent), (right_gradient, right_tangent) = self.tangent(ours), self.tangent(exact)
                self.assertIsNotNone(tangent)
                torch.testing.assert_close(gradient, right_gradient)
                torch.testing.assert_close(tangent, right_tangent)
                self.assertFalse(gradient.requires_grad)

    def test_under_a_dispatch_mode(self):
        for name, (ours, exact) in PAIRS.items():
            with self.subTest(name):
                right = self.tangent(exact).tangent
                with Calls():
                    torch.testing.assert_close(self.tangent(ours).tangent, right)

    def test_one_way_or_the_other(self):
        for name, (ours, exact) in PAIRS.items():
            qkv = inputs()
            for outer, inner in ((torch.func.jacfwd, torch.func.jacrev), (torch.func.jacrev, torch.func.jacfwd),
                                 (torch.func.jacrev, torch.func.jacrev), (torch.func.jacfwd, torch.func.jacfwd)):
                with self.subTest(name, outer=outer.__name__, inner=inner.__name__):
                    hessian = lambda f: outer(inner(lambda k: f(qkv[0], k, qkv[2]).sin().sum()))(qkv[1])
                    torch.testing.assert_close(hessian(ours), hessian(exact))

    def test_second_derivatives_of_slices(self):
        for name, (ours, exact) in PAIRS.items():
            for outer in (torch.func.jacfwd, torch.func.jacrev):
                with self.subTest(name, outer=outer.__name__):
                    hessian = lambda f: torch.vmap(outer(torch.func.jacrev(lambda t: f(t, t, t).sin().sum())))
                    x = inputs(length=3, count=1)[0].unsqueeze(1)
                    torch.testing.assert_close(hessian(ours)(x), hessian(exact)(x))

    def test_third_derivative(self):
        for name, (ours, exact) in PAIRS.items():
            with self.subTest(name):
                q, k, v = (t[0, 0] for t in inputs(length=3))
                if ours in (attention, linear_attention):
                    third = lambda f: torch.func.jacrev(torch.func.hessian(lambda s: f(q * s, k, v * s).sin().sum()))
                    s = torch.tensor(1.3, dtype=torch.float64)
                    torch.testing.assert_close(third(ours)(s), third(exact)(s))

    def test_first_derivatives_come_from_the_kernel(self):
        x, = leaves(inputs(count=1))
        for create_graph in (False, True):
            with Calls() as calls:
                torch.autograd.grad(attention(x, x, x).sum(), x, create_graph=create_graph)
            self.assertEqual([name for name in calls.names if name.startswith("attend.")],
                             ["attend._attention_forward.default", "attend._attention_backward.default"])


class BatchedGradients(unittest.TestCase):
    def gradients(self, function, batched):
        qkv = leaves(inputs())
        output = function(*qkv)
        torch.manual_seed(1)
        grads = torch.randn(3, *output.shape, dtype=output.dtype)
        if batched:
            return torch.autograd.grad(output, qkv, grads, is_grads_batched=True)
        each = [torch.autograd.grad(output, qkv, grad, retain_graph=True) for grad in grads]
        return tuple(torch.stack(slices) for slices in zip(*each))

    def test_is_grads_batched(self):
        for name, (ours, exact) in PAIRS.items():
            for ours in (ours, torch.compile(ours, backend="aot_eager")):
                with self.subTest(name):
                    torch._dynamo.reset()
                    torch.testing.assert_close(self.gradients(ours, True), self.gradients(exact, False))

    def test_vectorized_jacobian(self):
        for name, (ours, exact) in PAIRS.items():
            with self.subTest(name):
                qkv = tuple(inputs(length=3))
                torch.testing.assert_close(torch.autograd.functional.jacobian(ours, qkv, vectorize=True),
                                           torch.autograd.functional.jacobian(exact, qkv))

    def test_gradcheck(self):
        for name, (ours, _) in PAIRS.items():
            with self.subTest(name):
                qkv = leaves(inputs(length=3))
                torch.autograd.gradcheck(ours, qkv, check_batched_grad=True, check_forward_ad=True)
                torch.autograd.gradgradcheck(ours, qkv, check_batched_grad=True, check_fwd_over_rev=True)

    def test_vmap_of_autograd(self):
        for name, (ours, exact) in PAIRS.items():
            with self.subTest(name):
                def rows(function):
                    qkv = leaves(inputs(length=3))
                    output = function(*qkv)
                    units = torch.eye(output.numel(), dtype=output.dtype).view(-1, *output.shape)
                    return torch.vmap(lambda unit: torch.autograd.grad(output, qkv, unit, retain_graph=True))(units)

                torch.testing.assert_close(rows(ours), rows(exact))


class Vmap(unittest.TestCase):
    def test_every_dimension(self):
        for name, (ours, exact) in PAIRS.items():
            for in_dims in ((0, 0, 0), (1, 1, 1), (3, 0, 0), (None, 0, 0), (0, None, None)):
                with self.subTest(name, in_dims=in_dims):
                    qkv = [t[0] if dim is None else t.movedim(0, dim) if dim == 3 else t
                           for t, dim in zip(inputs(), in_dims)]
                    lift = lambda f: lambda *qkv: f(*(t[None] for t in qkv))
                    torch.testing.assert_close(torch.vmap(lift(ours), in_dims)(*qkv),
                                               torch.vmap(lift(exact), in_dims)(*qkv))

    def test_gradients_of_slices(self):
        qkv = inputs()
        bias = torch.randn(BATCH, LENGTH, LENGTH, dtype=torch.float64)
        decay = -torch.rand(BATCH, HEADS, LENGTH, dtype=torch.float64)
        for ours, exact, more in ((attention, equations, bias), (linear_attention, linear_equations, decay)):
            for in_dims in ((0, 0, 0, 0), (0, None, None, None), (None, None, None, 0)):
                with self.subTest(ours.__name__, in_dims=in_dims):
                    every = [t if dim == 0 else t[0] for t, dim in zip([*qkv, more], in_dims)]
                    per_slice = lambda f: torch.vmap(torch.func.grad(
                        lambda *t: f(*(x[None] for x in t)).sin().sum(), argnums=(0, 1, 2, 3)), in_dims)(*every)
                    torch.testing.assert_close(per_slice(ours), per_slice(exact))

    def test_no_slices(self):
        for name, (ours, _) in PAIRS.items():
            with self.subTest(name):
                empty = [t[:0] for t in inputs()]
                self.assertEqual(torch.vmap(lambda *qkv: ours(*(t[None] for t in qkv))[0])(*empty).shape, empty[0].shape)

    def test_in_the_graph_of_autograd(self):
        for name, (ours, exact) in PAIRS.items():
            with self.subTest(name):
                qkv = leaves(inputs())
                mapped = lambda f: torch.vmap(lambda *qkv: f(*(t[None] for t in qkv)))(*qkv).sin().sum()
                torch.testing.assert_close(torch.autograd.grad(mapped(ours), qkv), torch.autograd.grad(mapped(exact), qkv))


class Compiled(unittest.TestCase):
    """The transforms compiled, and traced with symbolic sizes: right at every length, without compiling anew."""

    def transforms(self, f):
        one = lambda *qkv: f(*(t[None] for t in qkv))[0]
        return {"vmap": lambda *qkv: torch.vmap(one)(*qkv),
                "grad": lambda *qkv: torch.func.grad(lambda q: f(q, *qkv[1:]).sin().sum())(qkv[0]),
                "jvp": lambda *qkv: torch.func.jvp(f, qkv, qkv)[1],
                "vmap of grad": lambda *qkv: torch.vmap(torch.func.grad(lambda *t: one(*t).sin().sum()))(*qkv)}

    def test_compile(self):
        for name, (ours, exact) in PAIRS.items():
            for transform, function in self.transforms(ours).items():
                with self.subTest(name, transform=transform):
                    torch._dynamo.reset()
                    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=True)
                    right = self.transforms(exact)[transform]
                    torch.testing.assert_close(compiled(*inputs()), right(*inputs()))
                    with torch.compiler.set_stance("fail_on_recompile"):
                        torch.testing.assert_close(compiled(*inputs(length=9)), right(*inputs(length=9)))

    def test_symbolic_trace(self):
        for name, (ours, exact) in PAIRS.items():
            for transform, function in self.transforms(ours).items():
                with self.subTest(name, transform=transform):
                    traced = make_fx(function, tracing_mode="symbolic")(*inputs())
                    right = self.transforms(exact)[transform]
                    for length in (LENGTH, 9):
                        torch.testing.assert_close(traced(*inputs(length)), right(*inputs(length)))

    def test_every_argument(self):
        lengths, slopes = torch.tensor([3, 7]), torch.rand(HEADS, dtype=torch.float64)
        call = lambda *qkv: ops.attention(*qkv, is_causal=True, window=[3, 0], key_lengths=lengths, softcap=2.0,
                                          alibi_slopes=slopes)
        qkv = inputs()
        torch._dynamo.reset()
        compiled = torch.compile(lambda *qkv: torch.func.jvp(call, qkv, qkv)[1], fullgraph=True, backend="aot_eager",
                                 dynamic=True)
        torch.testing.assert_close(compiled(*qkv), torch.func.jvp(call, tuple(qkv), tuple(qkv))[1])

    def test_compiled_autograd(self):
        for name, (ours, exact) in PAIRS.items():
            with self.subTest(name):
                torch._dynamo.reset()
                qkv, right = leaves(inputs()), leaves(inputs())
                loss = ours(*qkv).sin().sum()
                exact(*right).sin().sum().backward()
                with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager")):
                    loss.backward()
                for left, expected in zip(qkv, right):
                    torch.testing.assert_close(left.grad, expected.grad)


class Dropout(unittest.TestCase):
    P = 0.4

    def drop(self, *qkv):
        return ops.attention(*qkv, dropout_p=self.P)

    def weights(self, query, key):
        return self.drop(query, key, torch.eye(key.shape[-2], dtype=key.dtype).expand(*key.shape[:-1], -1))

    def test_randomness_of_vmap(self):
        q, k, _ = (t[:1, :1] for t in inputs(length=16))
        slices = lambda mode, function, *args: torch.vmap(function, randomness=mode)(*args)
        for what, function in (("batched", lambda x: self.weights(q + 0 * x, k)), ("not batched", lambda x: self.weights(q, k) + 0 * x)):
            with self.subTest(what):
                zeros = torch.zeros(3, dtype=torch.float64)
                with self.assertRaisesRegex(RuntimeError, "randomness"):
                    slices("error", function, zeros)
                same, different = slices("same", function, zeros), slices("different", function, zeros)
                self.assertTrue(torch.equal(same[0], same[1]) and torch.equal(same[0], same[2]))
                self.assertFalse(torch.equal(different[0], different[1]))
                for all_slices in (same, different):
                    self.assertTrue(0.1 < (all_slices == 0).double().mean() < 0.7)

    def test_the_reference_drops_what_the_kernel_drops(self):
        """A tangent makes the reference compute the call."""
        q, k, v = inputs(length=37)
        for p in (0.3, 0.999, 1.0):
            torch.manual_seed(7)
            expected = ops.attention(q, k, v, dropout_p=p)
            with forward_ad.dual_level():
                torch.manual_seed(7)
                ours = forward_ad.unpack_dual(ops.attention(forward_ad.make_dual(q, q), k, v, dropout_p=p)).primal
            torch.testing.assert_close(ours, expected)

    def test_compiled_transforms(self):
        q, k, v = inputs()
        scalar = lambda q: self.drop(q, k, v).sin().sum()
        one = lambda *qkv: self.drop(*(t[None] for t in qkv))[0]
        transforms = {"jvp": lambda q: torch.func.jvp(scalar, (q,), (q,))[1],
                      "grad": lambda q: torch.func.grad(scalar)(q),
                      "vmap": lambda q: torch.vmap(one, randomness="different")(q, k, v),
                      "vmap, same": lambda q: torch.vmap(one, randomness="same")(q, k, v)}
        for name, transform in transforms.items():
            with self.subTest(name):
                torch._dynamo.reset()
                compiled = torch.compile(transform, fullgraph=True, backend="aot_eager")
                torch.manual_seed(5)
                ours = compiled(q)
                torch.manual_seed(5)
                torch.testing.assert_close(ours, transform(q))

    def test_fake_tensors(self):
        with torch._subclasses.FakeTensorMode() as mode:
            q, k, v = (mode.from_tensor(t) for t in inputs())
            self.assertEqual(self.drop(q, k, v).shape, q.shape)
            self.assertEqual(torch.func.jvp(lambda q: self.drop(q, k, v), (q,), (q,))[1].shape, q.shape)
            self.assertEqual(torch.func.grad(lambda q: self.drop(q, k, v).sum())(q).shape, q.shape)

    def test_a_refused_call_draws_nothing(self):
        q, k, v = inputs()
        state = torch.get_rng_state()
        with self.assertRaises(RuntimeError):
            ops.attention(q, k[..., :3], v, dropout_p=0.5)
        self.assertTrue(torch.equal(torch.get_rng_state(), state))


class Autocast(unittest.TestCase):
    def test_as_without_vmap(self):
        q, k, v = inputs(dtype=torch.float32)
        for name, function in {"attention": attention, "linear_attention": linear_attention}.items():
            for key in (k, k.bfloat16()):
                with self.subTest(name, key=key.dtype), torch.autocast("cpu", dtype=torch.bfloat16):
                    mapped = torch.vmap(lambda *qkv: function(*(t[None] for t in qkv))[0])(q, key, v)
                    expected = function(q, key, v)
                    self.assertEqual(mapped.dtype, torch.bfloat16)
                    self.assertTrue(torch.equal(mapped, expected))
                    unmapped = torch.vmap(lambda x: function(q, key, v) + 0 * x)(torch.zeros(2, dtype=torch.bfloat16))
                    self.assertTrue(torch.equal(unmapped[1], expected))

    def test_gradients(self):
        qkv = inputs(dtype=torch.float32)
        per_slice = lambda q, k, v: torch.func.grad(lambda q: attention(q[None], k[None], v[None]).float().sum())(q)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mapped = torch.vmap(per_slice)(*qkv)
            leaf = qkv[0].clone().requires_grad_()
            expected, = torch.autograd.grad(attention(leaf, *qkv[1:]).float().sum(), leaf)
        self.assertEqual(mapped.dtype, torch.float32)
        self.assertTrue(torch.equal(mapped, expected))


if __name__ == "__main__":
    unittest.main()
