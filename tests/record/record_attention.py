"""Records the outputs, weights and gradients of the Python module Attention, for tests/nn/attention_test.cpp.

Run: python tests/record/record_attention.py   (writes tests/data/attention.pt, a plain dict of tensors)
"""

import math
import pathlib

import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self, d_q, d_k, d_v):
        super().__init__()
        self.q_linear = nn.Linear(d_q, d_k)
        self.k_linear = nn.Linear(d_k, d_k)
        self.v_linear = nn.Linear(d_v, d_v)
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, q, k, v):
        q, k, v = self.q_linear(q), self.k_linear(k), self.v_linear(v)
        attention_scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        weights = self.softmax(attention_scores)
        return torch.matmul(weights, v), weights


CASES = {  # name: (batch, Lq, Lk, d_q, d_k, d_v, dtype)
    "square": ([2], 5, 5, 8, 8, 8, torch.float64),
    "longer_keys": ([2], 3, 7, 4, 6, 5, torch.float64),
    "longer_queries": ([1], 9, 2, 3, 5, 7, torch.float64),
    "no_batch": ([], 4, 6, 5, 4, 3, torch.float64),
    "one_of_each": ([1], 1, 1, 1, 1, 1, torch.float64),
    "square_float32": ([2], 5, 5, 8, 8, 8, torch.float32),
    "no_batch_float32": ([], 4, 6, 5, 4, 3, torch.float32),
    "wide_float32": ([1], 10, 12, 32, 24, 48, torch.float32),
}


def record(batch, queries, keys, d_q, d_k, d_v, dtype):
    module = Attention(d_q, d_k, d_v).to(dtype)
    inputs = {
        "q": torch.randn(*batch, queries, d_q, dtype=dtype, requires_grad=True),
        "k": torch.randn(*batch, keys, d_k, dtype=dtype, requires_grad=True),
        "v": torch.randn(*batch, keys, d_v, dtype=dtype, requires_grad=True),
    }
    output, weights = module(**inputs)
    grad_output = torch.randn_like(output)
    output.backward(grad_output)
    parameters = dict(module.named_parameters())
    recorded = {"output": output, "weights": weights, "grad_output": grad_output, **inputs, **parameters}
    recorded |= {f"grad.{name}": tensor.grad for name, tensor in (inputs | parameters).items()}
    return {name: tensor.detach().clone() for name, tensor in recorded.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    file = pathlib.Path(__file__).parents[1] / "data" / "attention.pt"
    torch.save({f"{case}/{name}": tensor for case, sizes in CASES.items() for name, tensor in record(*sizes).items()}, file)
    print(f"{file}: {file.stat().st_size} bytes")
