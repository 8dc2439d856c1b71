"""Records the results of PyTorch and transformers, for tests/functional/position_test.cpp,
tests/nn/multi_head_attention_test.cpp and tests/nn/transformer_test.cpp.

Run: python tests/record/record_modules.py   (needs torch, transformers and safetensors; writes
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

YARN = {  # name: (channels, base, factor, context length in training)
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
    """Returns the slopes of ALiBi by the reference code of Press 2022."""
    if math.log2(heads).is_integer():
        start = 2 ** (-(2 ** -(math.log2(heads) - 3)))
        return [start * start**i for i in range(heads)]
    below = 2 ** math.floor(math.log2(heads))
    return alibi_slopes(below) + alibi_slopes(2 * below)[0::2][: heads - below]


# ---- modules: exact results in float64, and PyTorch's errors in narrower dtypes

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

INPUTS = ("query", "key", "value", "src", "tgt", "memory")
NARROWER = (torch.float32, torch.bfloat16, torch.float16)  # the order of the recorded errors


def coarse(*sizes):
    """Returns random values that every dtype represents exactly."""
    return (torch.randn(*sizes, dtype=torch.float64) * 16).round() / 16


def masks(batch, heads, queries, keys, key_padding_mask=None, attn_mask=None):
    """Returns random masks. Key 0 stays visible, since PyTorch returns NaN for a fully masked row."""
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
    """Returns the outputs, and the gradients of the inputs and parameters."""
    module.to(dtype).zero_grad()
    inputs = to_dtype(inputs, dtype)
    leaves = {name: tensor.requires_grad_() for name, tensor in inputs.items() if name in INPUTS}
    outputs = call(module, inputs)
    outputs["output"].backward(inputs["grad_output"])
    gradients = leaves | dict(module.named_parameters())
    return to_dtype(outputs | {f"grad.{name}": tensor.grad for name, tensor in gradients.items()}, torch.float64)


@torch.no_grad()
def draw_parameters(module):
    for parameter in module.parameters():
        parameter.copy_(coarse(*parameter.shape) / 2)


@torch.no_grad()
def near_the_kink(module, call, inputs):
    """Whether an argument of a ReLU is so small that rounding can change its sign."""
    arguments = []
    layer_has_relu = getattr(module, "activation", None) is nn.functional.relu
    hook = module.linear1.register_forward_hook(lambda *call: arguments.append(call[-1])) if layer_has_relu else None
    call(module, to_dtype(inputs, torch.float64))
    if hook is not None:
        hook.remove()
    return any(argument.abs().min() < 0.1 for argument in arguments)


def record_module(module, call, inputs):
    """Returns the inputs, parameters, exact results, and the largest errors of PyTorch in narrower dtypes."""
    draw_parameters(module)
    while near_the_kink(module, call, inputs):
        draw_parameters(module)
    recorded = to_dtype(inputs | dict(module.named_parameters()), torch.float32)
    exact = results(module, call, inputs, torch.float64)
    plain = [results(module, call, inputs, dtype) for dtype in NARROWER]
    errors = {f"error.{name}": torch.stack([(narrow[name] - tensor).abs().max() for narrow in plain]) for name, tensor in exact.items()}
    return recorded | exact | errors


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


LAYERS = {  # name: options of torch.nn.TransformerEncoderLayer and -DecoderLayer, and the masks
    "plain": {},
    "norm_first": {"norm_first": True},
    "gelu": {"activation": "gelu", "layer_norm_eps": 1e-3},
    "no_bias": {"bias": False, "norm_first": True, "activation": "gelu"},
    "masked": {"key_padding_mask": "bool", "attn_mask": "bool 2"},
    "norm_first_masked": {"norm_first": True, "key_padding_mask": "bool", "attn_mask": "float 2"},
    "gelu_mask_3d": {"attn_mask": "float 3", "activation": "gelu", "layer_norm_eps": 1e-3},
}
STACKS = {
    "gelu_masked": {"key_padding_mask": "bool", "attn_mask": "bool 2", "activation": "gelu", "layer_norm_eps": 1e-3},
    "gelu_norm_first": {"norm_first": True, "key_padding_mask": "bool", "attn_mask": "float 2", "activation": "gelu", "layer_norm_eps": 1e-3},
}
WIDTH, HEADS, FEED_FORWARD, BATCH, TARGETS, SOURCES = 4, 2, 6, 2, 3, 5
STRUCTURE = {"d_model": WIDTH, "nhead": HEADS, "dim_feedforward": FEED_FORWARD, "dropout": 0.0, "batch_first": True, "dtype": torch.float64}


def options_of(options):
    kinds = {name: options[name] for name in ("key_padding_mask", "attn_mask") if name in options}
    return {name: value for name, value in options.items() if name not in kinds}, kinds


def encoder_inputs(kinds):
    inputs = {"src": coarse(BATCH, SOURCES, WIDTH), "grad_output": coarse(BATCH, SOURCES, WIDTH)}
    return inputs | {f"src_{name}": mask for name, mask in masks(BATCH, HEADS, SOURCES, SOURCES, **kinds).items()}


def decoder_inputs(kinds, memory="memory"):
    inputs = {name: coarse(BATCH, TARGETS, WIDTH) for name in ("tgt", "grad_output")}
    inputs[memory] = coarse(BATCH, SOURCES, WIDTH)
    inputs |= {f"tgt_{name}": mask for name, mask in masks(BATCH, HEADS, TARGETS, TARGETS, **kinds).items()}
    return inputs | {f"memory_{name}": mask for name, mask in masks(BATCH, HEADS, TARGETS, SOURCES, **kinds).items()}


def python_masks(inputs, *parts):
    """Returns the masks by their argument names in these modules, where attn_mask is called mask."""
    named = {name.replace("attn_mask", "mask"): tensor for name, tensor in inputs.items() if "mask" in name}
    return {name: tensor for name, tensor in named.items() if name.startswith(parts)}


def call_encoder(module, inputs):
    given = {name.replace("src_mask", "mask") if isinstance(module, nn.TransformerEncoder) else name: mask for name, mask in python_masks(inputs, "src").items()}
    return {"output": module(inputs["src"], **given)}


def call_decoder(module, inputs):
    return {"output": module(inputs["tgt"], inputs["memory"], **python_masks(inputs, "tgt", "memory"))}


def call_transformer(module, inputs):
    return {"output": module(inputs["src"], inputs["tgt"], **python_masks(inputs, "src", "tgt", "memory"))}


def record_transformers():
    cases = {}
    for name, case in LAYERS.items():
        options, kinds = options_of(case)
        encoder, decoder = nn.TransformerEncoderLayer(**STRUCTURE, **options), nn.TransformerDecoderLayer(**STRUCTURE, **options)
        cases[f"encoder_layer_{name}"] = record_module(encoder, call_encoder, encoder_inputs(kinds))
        cases[f"decoder_layer_{name}"] = record_module(decoder, call_decoder, decoder_inputs(kinds))
    for name, case in STACKS.items():
        options, kinds = options_of(case)
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(**STRUCTURE, **options), 2, enable_nested_tensor=False)
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**STRUCTURE, **options), 2, norm=nn.LayerNorm(WIDTH, options["layer_norm_eps"], dtype=torch.float64))
        both = nn.Transformer(**STRUCTURE, **options, num_encoder_layers=1, num_decoder_layers=1)
        cases[f"encoder_{name}"] = record_module(encoder, call_encoder, encoder_inputs(kinds))
        cases[f"decoder_{name}"] = record_module(decoder, call_decoder, decoder_inputs(kinds))
        cases[f"transformer_{name}"] = record_module(both, call_transformer, encoder_inputs(kinds) | decoder_inputs(kinds, memory="src"))
    return cases


def record_all():
    cases = {name: record_yarn(*case) for name, case in YARN.items()}
    cases |= {name: record_multi_head(**case) for name, case in MULTI_HEAD.items()}
    cases |= {name: record_buckets(*case) for name, case in BUCKETS.items()}
    cases |= record_transformers()
    cases["alibi"] = {str(n): torch.tensor(alibi_slopes(n)) for n in (1, 2, 3, 6, 8, 12, 20, 32)}
    return {f"{case}/{name}": tensor for case, tensors in cases.items() for name, tensor in tensors.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    file = pathlib.Path(__file__).parents[1] / "data" / "modules.safetensors"
    save_file(record_all(), file)
    print(f"{file}: {file.stat().st_size} bytes")
