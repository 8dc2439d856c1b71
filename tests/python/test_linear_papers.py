"""Published mechanisms as settings of attend::linear_attention: outputs and all gradients against each paper's equation."""

import unittest

import torch

from support import gradients, leaves

linear_attention = torch.ops.attend.linear_attention

BATCH, HEADS, LENGTH, D, DV = 2, 3, 130, 6, 5  # more than two chunks of 64
PLAIN = {"feature_map": "identity", "normalize": False, "is_causal": True}
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()


def transposed(x):
    return x.transpose(-2, -1)


def katharopoulos(q, k, v):
    """Katharopoulos 2020, equation 9, with the feature map of equation 7."""
    phi = lambda x: torch.where(x > 0, x + 1, x.clamp(max=0).exp())
    similarity = (phi(q) @ transposed(phi(k))).masked_fill(~CAUSAL, 0)
    return similarity @ v / similarity.sum(-1, keepdim=True)


def retention(q, k, v, gamma):
    """Sun 2023, equation 5: (Q K^T * D) V, D_nm = gamma^(n - m) for n >= m."""
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    weights = (gamma[:, None, None] ** distance.clamp(min=0)).masked_fill(~CAUSAL, 0)
    return (q @ transposed(k) * D**-0.5 * weights) @ v


def mamba2(c, b, x, a):
    """Dao & Gu 2024, section 5: Y = (L * C B^T) X, L_ij = a_i ... a_{j+1}."""
    sums = a.log().cumsum(-1)
    decays = (sums[..., :, None] - sums[..., None, :]).masked_fill(~CAUSAL, -torch.inf).exp()
    return (decays * (c @ transposed(b))) @ x


def gla(q, k, v, alpha):
    """Yang 2023, section 4.1: ((Q * B)(K / B)^T masked) V, where B_t is the product of the gates up to t."""
    b = alpha.cumprod(2)
    return ((q * b) @ transposed(k / b)).masked_fill(~CAUSAL, 0) @ v * D**-0.5


def delta_net(q, k, v, beta):
    """Yang 2024, equation 3: S_t = S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T, o_t = S_t q_t."""
    return gated_delta_net(q, k, v, torch.ones_like(beta), beta)


def gated_delta_net(q, k, v, alpha, beta):
    """Yang & Kautz 2024, equation 10: S_t = S_{t-1} alpha_t (I - beta_t k_t k_t^T) + beta_t v_t k_t^T."""
    state, outputs = torch.zeros(BATCH, HEADS, DV, D, dtype=q.dtype), []
    for t in range(LENGTH):
        key, value, strength = k[:, :, t, :, None], v[:, :, t, :, None], beta[:, :, t, None, None]
        transition = alpha[:, :, t, None, None] * (torch.eye(D, dtype=q.dtype) - strength * key @ transposed(key))
        state = state @ transition + strength * value @ transposed(key)
        outputs.append((state @ q[:, :, t, :, None]).squeeze(-1) * D**-0.5)
    return torch.stack(outputs, 2)


def kimi_delta_attention(q, k, v, alpha, beta):
    """Kimi Team 2025, equation 1: S_t = (I - beta_t k_t k_t^T) Diag(alpha_t) S_{t-1} + beta_t k_t v_t^T."""
    state, outputs = torch.zeros(BATCH, HEADS, D, DV, dtype=q.dtype), []
    for t in range(LENGTH):
        key, value, strength = k[:, :, t, :, None], v[:, :, t, :, None], beta[:, :, t, None, None]
        erase = torch.eye(D, dtype=q.dtype) - strength * key @ transposed(key)
        state = erase @ (alpha[:, :, t, :, None] * state) + strength * key @ transposed(value)
        outputs.append((transposed(state) @ q[:, :, t, :, None]).squeeze(-1) * D**-0.5)
    return torch.stack(outputs, 2)


class Papers(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        draw = lambda *size: torch.randn(BATCH, HEADS, LENGTH, *size, dtype=torch.float64)
        unit = lambda x: x / x.norm(dim=-1, keepdim=True)
        self.q, self.k, self.v = leaves([unit(draw(D)), unit(draw(D)), draw(DV)])
        self.channel_decay, self.step_decay, self.beta = leaves(
            [0.95 + 0.05 * draw(D).sigmoid(), 0.5 + 0.5 * draw().sigmoid(), draw().sigmoid()])
        self.head_decay = leaves([1 - 2.0 ** (-5 - torch.arange(HEADS, dtype=torch.float64))])[0]

    def check(self, formula, gates, **params):
        """`gates` are further leaves, on which the formula and the parameters depend."""
        inputs = [self.q, self.k, self.v, *gates]
        ours, exact = linear_attention(*inputs[:3], **params)[0], formula(*inputs)
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-10)
        for left, right in zip(gradients([ours], inputs), gradients([exact], inputs)):
            torch.testing.assert_close(left, right, rtol=1e-8, atol=1e-9)

    def test_linear_attention(self):
        self.check(katharopoulos, [], is_causal=True)

    def test_retention(self):
        self.check(retention, [self.head_decay], **PLAIN, log_decay=self.head_decay.log())

    def test_lightning_attention(self):
        self.check(lambda *inputs: retention(*inputs) * D**0.5, [self.head_decay], **PLAIN, scale=1.0,
                   log_decay=self.head_decay.log())

    def test_mamba2(self):
        self.check(mamba2, [self.step_decay], **PLAIN, scale=1.0, log_decay=self.step_decay.log())

    def test_gated_linear_attention(self):
        self.check(gla, [self.channel_decay], **PLAIN, log_decay=self.channel_decay.log())

    def test_delta_net(self):
        self.check(delta_net, [self.beta], **PLAIN, beta=self.beta)

    def test_gated_delta_net(self):
        self.check(gated_delta_net, [self.step_decay, self.beta], **PLAIN, log_decay=self.step_decay.log(),
                   beta=self.beta)

    def test_kimi_delta_attention(self):
        self.check(kimi_delta_attention, [self.channel_decay, self.beta], **PLAIN,
                   log_decay=self.channel_decay.log(), beta=self.beta)


if __name__ == "__main__":
    unittest.main()
