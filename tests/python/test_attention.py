"""attend::attention and attend::attention_with_lse: results and gradients against the equations in plain ATen, derivatives
of every kind, tracing, compilation, transforms and errors."""

import logging
import math
import unittest

import torch
from torch.autograd import gradcheck, gradgradcheck

from support import Accuracy, gradients, leaves

attention = torch.ops.attend.attention
attention_with_lse = torch.ops.attend.attention_with_lse

BATCH, HEADS, KV_HEADS, QUERIES, KEYS, D, DV = 2, 4, 2, 5, 7, 8, 6


def formula(query, key, value, *, attn_mask=None, is_causal=False, window=None, key_lengths=None, alibi_slopes=None,
            softcap=0.0, scale=None):
    """Computes output and logsumexp by the equations of the papers; tensors are [B, H, L, D]."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if softcap > 0:
        scores = softcap * torch.tanh(scores / softcap)
    row = torch.arange(query.shape[2])[:, None] + key.shape[2] - query.shape[2]
    column = torch.arange(key.shape[2])[None, :]
    if alibi_slopes is not None:
        scores = scores - alibi_slopes[..., None, None].to(scores.dtype) * (row - column).abs()
    allowed = torch.ones(scores.shape, dtype=torch.bool)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        allowed = allowed & attn_mask
    elif attn_mask is not None:
        scores = scores + attn_mask.to(scores.dtype)
    if is_causal:
        allowed = allowed & (column <= row)
    if window is not None:
        left, right = window
        allowed = allowed & ((left < 0) | (column >= row - left)) & ((right < 0) | (column <= row + right))
    if key_lengths is not None:
        allowed = allowed & (column < key_lengths[:, None, None, None])
    has_key = allowed.any(-1)
    scores = scores.masked_fill(~allowed & has_key[..., None], -math.inf)  # fully masked rows stay finite
    weights = torch.softmax(scores, -1) * has_key[..., None]
    return weights @ value, torch.logsumexp(scores, -1).masked_fill(~has_key, -math.inf)


def inputs(dtype=torch.float64, batch=BATCH, heads=HEADS, kv_heads=KV_HEADS, queries=QUERIES, keys=KEYS):
    torch.manual_seed(0)
    sizes = [(batch, heads, queries, D), (batch, kv_heads, keys, D), (batch, kv_heads, keys, DV)]
    return [torch.randn(size, dtype=torch.float64).to(dtype) for size in sizes]


def cases(dtype=torch.float64):
    """Returns the arguments of each case by the name of the case: each argument alone, and all combined."""
    torch.manual_seed(1)
    bias = torch.randn(HEADS, QUERIES, KEYS, dtype=torch.float64).to(dtype)
    slopes = torch.rand(HEADS, dtype=torch.float64).to(dtype)
    mask = torch.rand(BATCH, 1, QUERIES, KEYS) > 0.4
    mask[0, 0, 2] = False  # a fully masked row
    return {
        "plain": {},
        "boolean mask": {"attn_mask": mask},
        "floating mask": {"attn_mask": bias},
        "floating mask of one row": {"attn_mask": bias[0, :1]},
        "causal": {"is_causal": True},
        "window": {"window": [2, 1]},
        "window, left unbounded": {"window": [-1, 0]},
        "key_lengths": {"key_lengths": torch.tensor([KEYS, 3])},
        "key_lengths of 0": {"key_lengths": torch.tensor([0, 4])},
        "alibi_slopes [H]": {"alibi_slopes": slopes},
        "alibi_slopes [B, H]": {"alibi_slopes": torch.stack([slopes, 2 * slopes])},
        "softcap": {"softcap": 0.8},
        "scale": {"scale": 0.3},
        "all": {"attn_mask": bias, "is_causal": True, "window": [4, 0], "key_lengths": torch.tensor([KEYS, 5]),
                "alibi_slopes": slopes, "softcap": 1.5, "scale": 0.3},
    }


def tensors_of(params):
    """Returns the parameters with their floating tensors replaced by leaves, and the leaves."""
    params = {name: leaves([value])[0] if torch.is_tensor(value) else value for name, value in params.items()}
    return params, [value for value in params.values() if torch.is_tensor(value) and value.is_floating_point()]


def results_and_gradients(function, dtype, name):
    params, more = tensors_of(cases(dtype)[name])
    qkv = leaves(inputs(dtype))
    results = function(*qkv, **params)
    return list(results), list(gradients([r.masked_fill(r.isinf(), 0) for r in results], qkv + more))


class Formula(Accuracy, unittest.TestCase):
    def test_every_argument(self):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for name in cases():
                with self.subTest(dtype=dtype, case=name):
                    self.compare(dtype, name)

    def compare(self, dtype, name):
        def plain_code(*qkv, **params):  # the equations in this dtype; the logsumexp is float32
            output, logsumexp = formula(*qkv, **params)
            return output, logsumexp.to(torch.float32)

        def exact(*qkv, **params):  # the equations in float64 on the same values
            params = {k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v for k, v in params.items()}
            return formula(*(t.double() for t in qkv), **params)

        ours = results_and_gradients(attention_with_lse, dtype, name)
        plain = results_and_gradients(plain_code, dtype, name)
        params, more = tensors_of(cases(dtype)[name])
        qkv = leaves(inputs(dtype))
        wide = [t.detach().double().requires_grad_() for t in qkv + more]
        names = [k for k, v in params.items() if torch.is_tensor(v) and v.is_floating_point()]
        results = exact(*wide[:3], **{**params, **dict(zip(names, wide[3:]))})
        exact_gradients = gradients([r.masked_fill(r.isinf(), 0) for r in results], wide)
        for n, what in enumerate(["output", "logsumexp"]):
            self.assert_as_accurate(ours[0][n], plain[0][n], results[n], 2, what)
        for n, what in enumerate(["query", "key", "value"] + names):
            self.assert_as_accurate(ours[1][n], plain[1][n], exact_gradients[n], 3, f"gradient of {what}")

    def test_attention_is_the_output_alone(self):
        for name, params in cases().items():
            with self.subTest(case=name):
                qkv = inputs()
                self.assertTrue(torch.equal(attention(*qkv, **params), attention_with_lse(*qkv, **params)[0]))

    def test_fewer_dimensions(self):
        query, key, value = inputs(heads=1, kv_heads=1)
        expected, logsumexp = formula(query, key, value, is_causal=True)
        three = attention_with_lse(query[:, 0], key[:, 0], value[:, 0], is_causal=True)
        two = attention_with_lse(query[1, 0], key[1, 0], value[1, 0], is_causal=True)
        for ours, exact in zip(three + two, (expected[:, 0], logsumexp[:, 0], expected[1, 0], logsumexp[1, 0])):
            torch.testing.assert_close(ours, exact)

    def test_keys_past_their_lengths_are_not_read(self):
        query, key, value = inputs()
        expected = attention(query, key, value, key_lengths=torch.tensor([3, 3]))
        key[:, :, 3:], value[:, :, 3:] = math.nan, math.nan
        self.assertTrue(torch.equal(attention(query, key, value, key_lengths=torch.tensor([3, 3])), expected))

    def test_empty_tensors(self):
        for sizes in ({"batch": 0}, {"queries": 0}, {"keys": 0}):
            with self.subTest(**sizes):
                output, logsumexp = attention_with_lse(*inputs(**sizes))
                self.assertTrue(torch.equal(output, torch.zeros_like(output)))
                self.assertTrue(logsumexp.isneginf().all())


class Differentiation(unittest.TestCase):
    def test_gradcheck(self):
        self.check(gradcheck, check_forward_ad=True)

    def test_gradgradcheck(self):
        self.check(gradgradcheck)

    def check(self, checker, **options):
        for name in cases():
            with self.subTest(case=name):
                params, more = tensors_of(cases()[name])
                names = [k for k, v in params.items() if torch.is_tensor(v) and v.is_floating_point()]

                def function(query, key, value, *rest):
                    output, logsumexp = attention_with_lse(query, key, value, **{**params, **dict(zip(names, rest))})
                    return output, logsumexp.masked_fill(logsumexp.isinf(), 0)

                checker(function, (*leaves(inputs()), *more), fast_mode=True, **options)

    def test_transforms(self):
        query, key, value = inputs()
        expected = attention(query, key, value, is_causal=True)

        def one(query, key, value):
            return attention(query[None], key[None], value[None], is_causal=True)[0]

        torch.testing.assert_close(torch.vmap(one)(query, key, value), expected)
        leaf = query.clone().requires_grad_()
        by_autograd, = torch.autograd.grad(attention(leaf, key, value, is_causal=True).sum(), leaf)
        by_transform = torch.func.grad(lambda q: attention(q, key, value, is_causal=True).sum())(query)
        torch.testing.assert_close(by_transform, by_autograd)
        jacobian = torch.func.jacrev(lambda q: attention(q, key, value, is_causal=True))(query)
        torch.testing.assert_close(jacobian.sum((0, 1, 2, 3)), by_autograd)

    def test_transforms_of_dropout(self):
        query, key, value = inputs()

        def loss(query):
            torch.manual_seed(0)
            return attention(query, key, value, dropout_p=0.3).sin().sum()

        leaf = query.clone().requires_grad_()
        by_autograd, = torch.autograd.grad(loss(leaf), leaf)
        torch.testing.assert_close(torch.func.grad(loss)(query), by_autograd)
        direction = torch.ones_like(query)
        _, tangent = torch.func.jvp(loss, (query,), (direction,))
        torch.testing.assert_close(tangent, (by_autograd * direction).sum())

    def test_lengths_under_vmap(self):
        query, key, value = (t[:1] for t in inputs())
        lengths = torch.tensor([[2], [5]])
        ours = torch.vmap(lambda n: attention(query, key, value, key_lengths=n))(lengths)
        for n in range(2):
            torch.testing.assert_close(ours[n], attention(query, key, value, key_lengths=lengths[n]))


class Registration(unittest.TestCase):
    def test_schemas(self):
        arguments = ("(Tensor query, Tensor key, Tensor value, *, Tensor? attn_mask=None, bool is_causal=False, "
                     "int[]? window=None, Tensor? key_lengths=None, Tensor? alibi_slopes=None, float softcap=0., "
                     "float? scale=None, float dropout_p=0.)")
        self.assertEqual(str(attention.default._schema), f"attend::attention{arguments} -> Tensor")
        self.assertEqual(str(attention_with_lse.default._schema),
                         f"attend::attention_with_lse{arguments} -> (Tensor output, Tensor logsumexp)")

    def test_opcheck(self):
        for name in cases():
            with self.subTest(case=name):
                params, _ = tensors_of(cases()[name])
                torch.library.opcheck(attention_with_lse.default, tuple(leaves(inputs())), params)
        torch.library.opcheck(attention.default, tuple(leaves(inputs())), {"is_causal": True})

    def test_opcheck_of_fewer_dimensions(self):
        query, key, value = (t[:, 0] for t in inputs(heads=1, kv_heads=1))
        torch.library.opcheck(attention_with_lse.default, tuple(leaves([query, key, value])), {"is_causal": True})

    def test_opcheck_without_gradients(self):
        tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
        torch.library.opcheck(attention.default, tuple(inputs()), {"is_causal": True}, test_utils=tests)

    def test_meta(self):
        query, key, value = (t.to("meta").requires_grad_() for t in inputs(torch.bfloat16))
        output, logsumexp = attention_with_lse(query, key, value, key_lengths=torch.empty(2, dtype=torch.int64))
        self.assertEqual((output.shape, output.dtype), ((BATCH, HEADS, QUERIES, DV), torch.bfloat16))
        self.assertEqual((logsumexp.shape, logsumexp.dtype), ((BATCH, HEADS, QUERIES), torch.float32))
        output.sum().backward()
        self.assertEqual(key.grad.shape, key.shape)

    def test_autocast(self):
        qkv, half = leaves(inputs(torch.float32)), leaves(inputs(torch.bfloat16))
        params = cases(torch.float32)["all"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output, logsumexp = attention_with_lse(*qkv, **params)
        expected = attention_with_lse(*half, **params)
        self.assertTrue(torch.equal(output, expected[0]) and torch.equal(logsumexp, expected[1]))
        for ours, half_gradient in zip(gradients([output], qkv), gradients([expected[0]], half)):
            self.assertEqual(ours.dtype, torch.float32)
            self.assertTrue(torch.equal(ours, half_gradient.to(torch.float32)))


class Compilation(unittest.TestCase):
    def compiled(self, function, **options):
        torch._dynamo.reset()
        return torch.compile(function, fullgraph=True, backend="aot_eager", **options)

    def compare(self, params, compiled, **sizes):
        """Asserts the same bits as without compilation, forward and backward, with dropout too."""
        params, more = tensors_of(params)
        qkv = leaves(inputs(torch.float32, **sizes))
        torch.manual_seed(3)
        expected = attention_with_lse(*qkv, **params)
        torch.manual_seed(3)
        ours = compiled(*qkv, **params)
        for left, right in zip(ours, expected):
            self.assertTrue(torch.equal(left, right))
        clean = lambda results: [r.masked_fill(r.isinf(), 0) for r in results]
        for left, right in zip(gradients(clean(ours), qkv + more), gradients(clean(expected), qkv + more)):
            self.assertTrue(torch.equal(left, right))

    def test_every_argument(self):
        for name in cases():
            for dropout_p in (0.0, 0.3) if name == "all" else (0.0,):
                with self.subTest(case=name, dropout_p=dropout_p):
                    compiled = self.compiled(attention_with_lse)
                    self.compare({**cases(torch.float32)[name], "dropout_p": dropout_p}, compiled)

    def test_dynamic_shapes(self):
        compiled = self.compiled(attention_with_lse, dynamic=True)
        self.compare({"is_causal": True}, compiled)
        with torch.compiler.set_stance("fail_on_recompile"):
            self.compare({"is_causal": True}, compiled, queries=9, keys=11)

    def test_without_gradients(self):
        compiled = self.compiled(lambda *qkv: attention(*qkv) * 2)
        qkv = inputs()
        for mode in (torch.no_grad(), torch.inference_mode()):
            with mode:
                self.assertTrue(torch.equal(compiled(*qkv), attention(*qkv) * 2))

    def test_values_of_lengths_are_checked_in_a_graph(self):
        compiled = self.compiled(attention)
        compiled(*inputs(), key_lengths=torch.tensor([1, 2]))
        with self.assertRaisesRegex(RuntimeError, "attend::attention: key_lengths: expected lengths in 0 ... 7, got 8"):
            compiled(*inputs(), key_lengths=torch.tensor([1, 8]))


class Dropout(unittest.TestCase):
    def test_gradients_drop_the_same_weights(self):
        query, key, value = inputs()
        value = torch.eye(KEYS, dtype=torch.float64).expand(BATCH, KV_HEADS, KEYS, KEYS).clone().requires_grad_()
        torch.manual_seed(0)
        weights = attention(query, key, value, dropout_p=0.5)
        self.assertTrue(0.2 < (weights == 0).double().mean() < 0.8)
        grad, = torch.autograd.grad(weights.sum(), value)
        by_hand = weights.detach().reshape(BATCH, KV_HEADS, -1, QUERIES, KEYS).sum((2, 3))
        torch.testing.assert_close(grad, by_hand[..., None].expand_as(grad))

    def test_the_seed_is_drawn_from_the_generator(self):
        qkv = inputs()
        torch.manual_seed(0)
        first, second = attention(*qkv, dropout_p=0.5), attention(*qkv, dropout_p=0.5)
        self.assertFalse(torch.equal(first, second))
        torch.manual_seed(0)
        self.assertTrue(torch.equal(attention(*qkv, dropout_p=0.5), first))


class Errors(unittest.TestCase):
    def setUp(self):
        logging.disable(logging.ERROR)  # of failing compilations
        self.addCleanup(logging.disable, logging.NOTSET)

    def fails(self, message, **params):
        torch._dynamo.reset()
        for function in (attention, torch.compile(attention, fullgraph=True, backend="aot_eager")):
            with self.assertRaises(RuntimeError) as caught:
                function(*inputs(), **params)
            self.assertIn(f"attend::attention: {message}", str(caught.exception))

    def test_wrong_arguments(self):
        self.fails("attn_mask: expected a shape that broadcasts to the scores [2, 4, 5, 7], got bool [3, 7]",
                   attn_mask=torch.ones(3, 7, dtype=torch.bool))
        self.fails("attn_mask: expected dtype bool (true = may attend), the query's or float32 (added to the scores), "
                   "got int64 [5, 7]", attn_mask=torch.ones(5, 7, dtype=torch.int64))
        self.fails("window: expected -1 (unbounded) or more, got -2", window=[-2, 0])
        self.fails("window: expected -1 (unbounded) or more, got -3", window=[0, -3])
        self.fails("window: expected [left, right], got [3]", window=[3])
        self.fails("key_lengths: expected one length per batch element, [2], got int64 [3]",
                   key_lengths=torch.ones(3).long())
        self.fails("key_lengths: expected int64 or int32 [B], got float32 [2]", key_lengths=torch.ones(2))
        self.fails("alibi_slopes: expected one per head, [4] or [2, 4], got float64 [2]",
                   alibi_slopes=torch.ones(2, dtype=torch.float64))
        self.fails("softcap: expected a positive number in the range of float32, got -2", softcap=-2.0)
        self.fails("dropout_p: expected a probability in [0, 1], got 1.5", dropout_p=1.5)
        self.fails("scale: expected a finite number in the range of float64, got inf", scale=math.inf)

    def test_wrong_layouts(self):
        for mask in (torch.ones(QUERIES, KEYS), torch.ones(QUERIES, KEYS, dtype=torch.bool)):
            with self.assertRaisesRegex(RuntimeError, r"attend::attention: attn_mask: expected a (dense|strided)"):
                attention(*inputs(), attn_mask=mask.to_sparse())

    def test_wrong_shapes(self):
        query, key, value = inputs()
        for device in ("cpu", "meta"):
            with self.assertRaisesRegex(RuntimeError, r"attend::attention: key: expected the query's last dimension, 8, "
                                                      r"got float64 \[2, 2, 7, 6\]"):
                attention(query.to(device), key[..., :6].to(device), value.to(device))


if __name__ == "__main__":
    unittest.main()
