"""attend::linear_attention: results and gradients against its recurrence, derivatives of every kind, tracing, compilation,
transforms and errors."""

import unittest

import torch
from torch.autograd import gradcheck, gradgradcheck

from support import gradients, leaves

linear_attention = torch.ops.attend.linear_attention

BATCH, HEADS, KV_HEADS, LENGTH, D, DV = 2, 4, 2, 5, 3, 6


def recurrence(query, key, value, *, feature_map="elu_plus_one", normalize=True, is_causal=False, log_decay=None,
               beta=None, initial_state=None, scale=None):
    """Computes output and final state step by step; tensors are [B, H, L, D]."""
    phi = {"elu_plus_one": lambda x: torch.nn.functional.elu(x) + 1, "relu": torch.relu, "identity": lambda x: x}
    group = query.shape[1] // key.shape[1]
    q = phi[feature_map](query) * (scale if scale is not None else 1 if normalize else D**-0.5)
    z_q = phi[feature_map](query)
    k = phi[feature_map](key).repeat_interleave(group, 1)
    v = value.repeat_interleave(group, 1)
    if normalize:  # the normaliser is a further column of the state, whose values are 1
        v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
    state = torch.zeros(BATCH, HEADS, D, v.shape[-1], dtype=q.dtype) if initial_state is None else initial_state
    read = lambda t, state: (torch.einsum("bhd,bhde->bhe", q[:, :, t], state),
                             torch.einsum("bhd,bhde->bhe", z_q[:, :, t], state))
    reads = []
    for t in range(key.shape[2]):
        if log_decay is not None:
            decay = log_decay.exp() if log_decay.dim() == 1 else log_decay[:, :, t].exp()
            state = state * (decay.unsqueeze(-1) if decay.dim() == 3 else decay[..., None, None])
        written = v[:, :, t]
        if beta is not None:
            written = beta[:, :, t, None] * (written - torch.einsum("bhd,bhde->bhe", k[:, :, t], state))
        state = state + k[:, :, t, :, None] * written[:, :, None, :]
        if is_causal:
            reads.append(read(t, state))
    if not is_causal:
        reads = [read(t, state) for t in range(query.shape[2])]
    output = torch.stack([scaled[..., :DV] / plain[..., DV:] if normalize else scaled for scaled, plain in reads], 2)
    return output, state


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    sizes = [(BATCH, HEADS, LENGTH, D), (BATCH, KV_HEADS, LENGTH, D), (BATCH, KV_HEADS, LENGTH, DV)]
    return [torch.randn(size, dtype=dtype) for size in sizes]


def cases(dtype=torch.float64):
    torch.manual_seed(1)
    decay = -torch.rand(BATCH, HEADS, LENGTH, D, dtype=dtype)
    beta = torch.rand(BATCH, HEADS, LENGTH, dtype=dtype)
    plain = {"feature_map": "identity", "normalize": False, "is_causal": True}
    return {
        "defaults": {},
        "causal": {"is_causal": True},
        "relu": {"feature_map": "relu", "normalize": False},
        "state": {"initial_state": torch.rand(BATCH, HEADS, D, DV + 1, dtype=dtype), "is_causal": True},
        "retention": {**plain, "log_decay": decay[0, :, 0, 0].clone(), "scale": 1.0},
        "decay of each step": {**plain, "log_decay": decay[..., 0].clone()},
        "decay of each channel": {**plain, "log_decay": decay},
        "delta rule": {**plain, "beta": beta},
        "gated delta rule": {**plain, "beta": beta, "log_decay": decay[..., 0].clone(),
                             "initial_state": torch.randn(BATCH, HEADS, D, DV, dtype=dtype)},
    }


def with_leaves(params):
    """Returns the parameters with their tensors replaced by leaves, and the leaves by name."""
    params = {name: leaves([value])[0] if torch.is_tensor(value) else value for name, value in params.items()}
    return params, {name: value for name, value in params.items() if torch.is_tensor(value)}


class LinearAttention(unittest.TestCase):
    def test_recurrence(self):
        for name in cases():
            with self.subTest(case=name):
                params, more = with_leaves(cases()[name])
                qkv = leaves(inputs())
                ours, expected = linear_attention(*qkv, **params), recurrence(*qkv, **params)
                every = qkv + list(more.values())
                for left, right in zip(ours + gradients(ours, every), expected + gradients(expected, every)):
                    torch.testing.assert_close(left, right)

    def test_gradcheck(self):
        self.check(gradcheck)

    def test_gradgradcheck(self):
        self.check(gradgradcheck)

    def check(self, checker):
        for name in cases():
            with self.subTest(case=name):
                params, more = with_leaves(cases()[name])

                def function(query, key, value, *rest):
                    return linear_attention(query, key, value, **{**params, **dict(zip(more, rest))})

                checker(function, (*leaves(inputs()), *more.values()), fast_mode=True)

    def test_schema(self):
        self.assertEqual(
            str(linear_attention.default._schema),
            'attend::linear_attention(Tensor query, Tensor key, Tensor value, *, str feature_map="elu_plus_one", '
            "bool normalize=True, bool is_causal=False, Tensor? log_decay=None, Tensor? beta=None, "
            "Tensor? initial_state=None, float? scale=None) -> (Tensor output, Tensor final_state)")

    def test_opcheck(self):
        for name in cases():
            with self.subTest(case=name):
                params, _ = with_leaves(cases()[name])
                torch.library.opcheck(linear_attention.default, tuple(leaves(inputs())), params)

    def test_autocast(self):
        qkv, half = leaves(inputs(torch.float32)), leaves(t.bfloat16() for t in inputs(torch.float32))
        params = cases(torch.float32)["gated delta rule"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            ours = linear_attention(*qkv, **params)
        expected = linear_attention(*half, **params)
        self.assertEqual((ours[0].dtype, ours[1].dtype), (torch.bfloat16, torch.float32))
        for left, right in zip(ours, expected):
            self.assertTrue(torch.equal(left, right))
        for left, right in zip(gradients(ours, qkv), gradients(expected, half)):
            self.assertTrue(torch.equal(left, right.to(torch.float32)))

    def compare_compiled(self, qkv, params):
        """Asserts the same bits as without compilation, forward and backward."""
        torch._dynamo.reset()
        compiled = torch.compile(linear_attention, fullgraph=True, backend="aot_eager")
        params, more = with_leaves(params)
        qkv = leaves(qkv)
        ours, expected = compiled(*qkv, **params), linear_attention(*qkv, **params)
        every = qkv + list(more.values())
        for left, right in zip(ours + gradients(ours, every), expected + gradients(expected, every)):
            self.assertTrue(torch.equal(left, right))

    def test_compilation(self):
        for dtype in (torch.float32, torch.bfloat16):
            for name in cases():
                with self.subTest(dtype=dtype, case=name):
                    self.compare_compiled(inputs(dtype), cases(dtype)[name])

    def test_compilation_of_fewer_dimensions(self):
        for is_causal in (False, True):
            for index in ((slice(None), 0), (0, 0)):
                with self.subTest(is_causal=is_causal, dim=4 - sum(isinstance(n, int) for n in index)):
                    decay = -torch.rand(BATCH, HEADS, LENGTH, generator=torch.Generator().manual_seed(2))
                    self.compare_compiled([t[index].bfloat16() for t in inputs()],
                                          {"is_causal": is_causal, "log_decay": decay[index]})

    def test_transforms(self):
        qkv = inputs()
        one = lambda *tensors: linear_attention(*(t[None] for t in tensors), is_causal=True)[0][0]
        torch.testing.assert_close(torch.vmap(one)(*qkv), linear_attention(*qkv, is_causal=True)[0])

    def test_wrong_feature_map(self):
        for device in ("cpu", "meta"):
            with self.assertRaisesRegex(RuntimeError, "attend::linear_attention: feature_map: expected elu_plus_one, "
                                                      "relu or identity, got softmax"):
                linear_attention(*(t.to(device) for t in inputs()), feature_map="softmax")


if __name__ == "__main__":
    unittest.main()
