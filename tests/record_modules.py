"""Records what Python computes, for tests/position_test.cpp.

Run: python tests/record_modules.py   (needs torch, transformers and safetensors; writes
tests/data/modules.safetensors, tensors named case/name)
"""

import math
import pathlib

import torch
from safetensors.torch import save_file
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


def record_all():
    cases = {name: record_yarn(*case) for name, case in YARN.items()}
    cases |= {name: record_buckets(*case) for name, case in BUCKETS.items()}
    cases["alibi"] = {str(n): torch.tensor(alibi_slopes(n)) for n in (1, 2, 3, 6, 8, 12, 20, 32)}
    return {f"{case}/{name}": tensor for case, tensors in cases.items() for name, tensor in tensors.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    file = pathlib.Path(__file__).parent / "data" / "modules.safetensors"
    save_file(record_all(), file)
    print(f"{file}: {file.stat().st_size} bytes")
