"""Records what transformers generates, for tests/generation/generation_test.cpp.

Run: python tests/record/record_generation.py   (needs torch, transformers and safetensors; writes
tests/data/generation.safetensors, tensors named case/name)

The model is a table: the logits of the next token are a row of it, chosen by the last token.
"""

import pathlib

import torch
from safetensors.torch import save_file
from transformers import (GenerationConfig, GenerationMixin, LogitsProcessorList, MinPLogitsWarper, PretrainedConfig,
                          PreTrainedModel, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)
from transformers.modeling_outputs import CausalLMOutput

VOCABULARY = 9

GENERATE = {  # name: parameters of `generate`; arrays of eos_token_id are padded with -1 in the record
    "greedy": {},
    "greedy_penalty": {"repetition_penalty": 1.8},
    "greedy_low_penalty": {"repetition_penalty": 0.6},
    "greedy_eos": {"eos_token_id": [2, 5, 7]},
    "greedy_min": {"eos_token_id": [2, 5, 7], "min_new_tokens": 4, "pad_token_id": 8},
    "greedy_all": {"eos_token_id": [2, 5], "min_new_tokens": 3, "repetition_penalty": 1.4},
    "beam": {"num_beams": 4, "eos_token_id": [2]},
    "beam_penalty": {"num_beams": 4, "eos_token_id": [2], "repetition_penalty": 1.8},
    "beam_eos": {"num_beams": 5, "eos_token_id": [2, 5, 7], "length_penalty": 2.0},
    "beam_min": {"num_beams": 5, "eos_token_id": [2, 5, 7], "min_new_tokens": 4},
    "beam_all": {"num_beams": 3, "eos_token_id": [2, 5], "min_new_tokens": 3, "repetition_penalty": 1.4},
}

SAMPLE = {  # name: (temperature, top_k, top_p, min_p)
    "sample_min_p": (1.0, 0, 1.0, 0.2),
    "sample_min_p_cold": (0.5, 0, 1.0, 0.2),
    "sample_top_k_min_p": (1.5, 4, 1.0, 0.3),
    "sample_all": (0.8, 7, 0.85, 0.15),
}


class Table(PreTrainedModel, GenerationMixin):
    config_class = PretrainedConfig

    def __init__(self, logits):
        super().__init__(PretrainedConfig(vocab_size=VOCABULARY, is_encoder_decoder=False))
        self.logits = torch.nn.Parameter(logits)
        self.generation_config = GenerationConfig()

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids}

    def forward(self, input_ids, attention_mask=None, return_dict=True):
        return CausalLMOutput(logits=self.logits[input_ids])


def record_generate(arguments):
    table = 1.5 * torch.randn(VOCABULARY, VOCABULARY, dtype=torch.float64)
    prompt = torch.randint(VOCABULARY, (6, 3))
    model = Table(table.clone())
    eos = arguments.get("eos_token_id")
    settings = {"pad_token_id": eos[0] if eos else 0, "early_stopping": "never", "use_cache": False, **arguments}
    if settings.get("num_beams", 1) == 1:
        del settings["early_stopping"]
    tokens = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False, **settings)
    params = {
        "eos_token_id": torch.tensor(eos or [], dtype=torch.int64),
        "pad_token_id": torch.tensor(settings["pad_token_id"]),
        "min_new_tokens": torch.tensor(arguments.get("min_new_tokens", 0)),
        "repetition_penalty": torch.tensor(arguments.get("repetition_penalty", 1.0), dtype=torch.float64),
        "num_beams": torch.tensor(arguments.get("num_beams", 1)),
        "length_penalty": torch.tensor(arguments.get("length_penalty", 1.0), dtype=torch.float64),
    }
    return {"table": table, "prompt": prompt, "tokens": tokens[:, 3:].contiguous(), **params}


def record_sample(temperature, top_k, top_p, min_p):
    logits = 2 * torch.randn(1, 12, dtype=torch.float64)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    warpers.append(MinPLogitsWarper(min_p))
    probabilities = warpers(torch.zeros(1, 0, dtype=torch.int64), logits.clone()).softmax(-1)
    params = torch.tensor([temperature, top_k, top_p, min_p], dtype=torch.float64)
    return {"logits": logits[0], "params": params, "probabilities": probabilities[0]}


torch.manual_seed(1)
records = {name: record_generate(arguments) for name, arguments in GENERATE.items()}
records |= {name: record_sample(*params) for name, params in SAMPLE.items()}
tensors = {f"{case}/{name}": tensor for case, record in records.items() for name, tensor in record.items()}
save_file(tensors, pathlib.Path(__file__).parents[1] / "data" / "generation.safetensors")
