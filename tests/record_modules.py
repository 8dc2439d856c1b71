"""Records what Python computes, for tests/position_test.cpp and tests/nn/multi_head_attention_test.cpp.

Run: python tests/record_modules.py   (needs torch, transformers and safetensors; writes
tests/data/modules.safetensors, tensors named case/name)
"""

import math
import pathlib

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.t5.modeling_t5 import T5Attention

YARN = {  # name: (channels, base, factor, length of the training's context)
    "yarn_llama": (128, 10000.0, 16.0, 4096),
    "yarn_small": (32, 10000.0, 4.0, 512),
    "yarn_wide_base": (64, 1000000.0, 2.5, 32768),
}

BUCKETS = {  # name: (bidirectional, count, max_distance)
    "buckets_encoder": (True, 32, 128),
    "buckets_decoder": (False, 32, 128),
    "buckets_few": (True, 8, 20),
    "buckets_odd": (False, 7, 50),
}


def record_yarn(dims, base, factor, original_length):
    config = LlamaConfig(
        hidden_size=dims,
        num_attention_heads=1,
        num_key_value_heads=1,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": base,
            "factor": factor,
            "original_max_position_embeddings": original_length,
        },
    )
    frequencies, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](config)
    return {
        "params": torch.tensor([dims, base, factor, original_length], dtype=torch.float64),
        "frequencies": frequencies,
        "attention_factor": torch.tensor(attention_factor, dtype=torch.float64),
    }


def record_buckets(bidirectional, count, max_distance):
    distances = torch.arange(-300, 301)
    buckets = T5Attention._relative_position_bucket(distances, bidirectional, count, max_distance)
    return {"params": torch.tensor([int(bidirectional), count, max_distance]), "buckets": buckets}


def alibi_slopes(heads):
    """As in the code of Press 2022."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(below) + alibi_slopes(2 * below)[0::2][: heads - below]


# ---- modules: exact results in float64, and how far Python's own are off in narrower dtypes

MULTI_HEAD = {  # name: sizes and options of torch.nn.MultiheadAttention, and the masks
    "mha_plain": {},
    "mha_no_bias": {"bias": False},
    "mha_no_batch": {"batch": None, "key_padding_mask": "bool", "attn_mask": "bool 3"},
    "mha_self": {"is_self": True, "attn_mask": "bool 2"},
    "mha_widths": {"kdim": 6, "vdim": 10},
    "mha_value_width": {"vdim": 4, "bias": False, "attn_mask": "float 2"},
    "mha_padding": {"key_padding_mask": "bool"},
    "mha_float_padding": {"key_padding_mask": "float"},
    "mha_mask_2d": {"attn_mask": "bool 2"},
    "mha_mask_3d": {"attn_mask": "bool 3"},
    "mha_float_2d": {"attn_mask": "float 2"},
    "mha_float_3d": {"attn_mask": "float 3"},
    "mha_both": {"key_padding_mask": "bool", "attn_mask": "bool 3"},
    "mha_both_float": {"key_padding_mask": "float", "attn_mask": "float 3", "kdim": 6},
    "mha_mixed": {"key_padding_mask": "bool", "attn_mask": "float 2"},
}

NARROWER = (torch.float32, torch.bfloat16, torch.float16)  # the order of the recorded errors


def coarse(*sizes, step=1 / 16):
    """Random numbers that every dtype holds exactly."""
    return (torch.randn(*sizes, dtype=torch.float64) / step).round() * step


def masks(batch, heads, queries, keys, key_padding_mask=None, attn_mask=None):
    """Key 0 stays visible: Python has NaN for a query that sees nothing."""
    made = {}
    if key_padding_mask is not None:
        hidden = torch.rand(batch, keys) < 0.4
        hidden[:, 0] = False
        made["key_padding_mask"] = hidden if key_padding_mask == "bool" else coarse(batch, keys).masked_fill(hidden, -torch.inf)
    if attn_mask is not None:
        kind, rank = attn_mask.split()
        sizes = [queries, keys] if rank == "2" else [batch * heads, queries, keys]
        hidden = torch.rand(*sizes) < 0.3
        hidden[..., 0] = False
        made["attn_mask"] = hidden if kind == "bool" else coarse(*sizes).masked_fill(hidden, -torch.inf)
    return made


def to_dtype(tensors, dtype):
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    return {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in cast.items()}


def results(module, call, inputs, dtype):
    """Outputs, and the gradients of the inputs and parameters."""
    module.to(dtype).zero_grad()
    inputs = to_dtype(inputs, dtype)
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items() if name in ("query", "key", "value", "src", "tgt")}
    outputs = call(module, inputs)
    outputs["output"].backward(inputs["grad_output"])
    gradients = leaves | dict(module.named_parameters())
    return to_dtype(outputs | {f"grad.{name}": tensor.grad for name, tensor in gradients.items()}, torch.float64)


def record_module(module, call, inputs):
    """Inputs, parameters, exact results, and the errors that Python makes in narrower dtypes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(coarse(*parameter.shape, step=1 / 64) / 2)
    exact = results(module, call, inputs, torch.float64)
    plain = [results(module, call, inputs, dtype) for dtype in NARROWER]
    errors = {f"error.{name}": torch.stack([(of_dtype[name] - tensor).abs().max() for of_dtype in plain]) for name, tensor in exact.items()}
    return to_dtype(inputs | dict(module.named_parameters()), torch.float32) | exact | errors


def record_multi_head(is_self=False, batch=2, kdim=None, vdim=None, bias=True, **mask_kinds):
    width, heads, queries = 8, 2, 5
    keys = queries if is_self else 7
    module = nn.MultiheadAttention(width, heads, kdim=kdim, vdim=vdim, bias=bias, batch_first=True, dtype=torch.float64)
    leading = [] if batch is None else [batch]
    inputs = {"query": coarse(*leading, queries, width), "grad_output": coarse(*leading, queries, width)}
    if not is_self:
        inputs["key"] = coarse(*leading, keys, kdim or width)
        inputs["value"] = coarse(*leading, keys, vdim or width)
    inputs |= masks(batch or 1, heads, queries, keys, **mask_kinds)
    if batch is None:
        inputs["key_padding_mask"] = inputs["key_padding_mask"][0]

    def call(module, inputs):
        query = inputs["query"]
        names = {name: inputs[name] for name in ("key_padding_mask", "attn_mask") if name in inputs}
        output, weights = module(query, inputs.get("key", query), inputs.get("value", query), average_attn_weights=False, **names)
        return {"output": output, "weights": weights}

    return record_module(module, call, inputs)


def record_all():
    cases = {name: record_yarn(*case) for name, case in YARN.items()}
    cases |= {name: record_multi_head(**case) for name, case in MULTI_HEAD.items()}
    cases |= {name: record_buckets(*case) for name, case in BUCKETS.items()}
    cases["alibi"] = {str(n): torch.tensor(alibi_slopes(n)) for n in (1, 2, 3, 6, 8, 12, 20, 32)}
    return {f"{case}/{name}": tensor for case, tensors in cases.items() for name, tensor in tensors.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    file = pathlib.Path(__file__).parent / "data" / "modules.safetensors"
    save_file(record_all(), file)
    print(f"{file}: {file.stat().st_size} bytes")
