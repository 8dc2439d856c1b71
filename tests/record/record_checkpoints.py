"""Records files that Python writes, and whether the reference reader accepts damaged ones, for
tests/checkpoint/checkpoint_test.cpp.

Run: python tests/record/record_checkpoints.py   (writes tests/data/checkpoints; needs torch and safetensors)
"""

import json
import os
import pathlib
import random
import struct

import torch
from collections import OrderedDict
from safetensors import SafetensorError
from safetensors.torch import load, save_file

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "checkpoints"

DTYPES = ["bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "bfloat16",
          "float32", "float64", "complex64", "float8_e5m2", "float8_e4m3fn"]


def tensors_of_every_dtype():
    """0, 1, ... 5 as [2, 3] in each dtype; modulo 2 for bool."""
    values = torch.arange(6).reshape(2, 3)
    return {name: (values % 2 if name == "bool" else values).to(getattr(torch, name)) for name in DTYPES}


class RunsCode:
    """Runs a command when it is unpickled by Python."""

    def __reduce__(self):
        return os.system, ("touch /tmp/attend_was_here",)


class AsBool:
    """A boolean tensor that is rebuilt from an untyped storage, with _rebuild_tensor_v3."""

    def __init__(self, storage):
        self.storage = storage

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v3, (self.storage, 0, (3,), (1,), False, OrderedDict(), torch.bool)


def write_pytorch():
    save = lambda name, value, **options: torch.save(value, FOLDER / f"{name}.pt", **options)
    module = torch.nn.Sequential(OrderedDict(first=torch.nn.Linear(3, 2), norm=torch.nn.BatchNorm1d(2)))
    with torch.no_grad():
        for n, parameter in enumerate(module.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter) + 100 * n)
    save("module", module.state_dict())
    save("protocol4", module.state_dict(), pickle_protocol=4)
    save("every_dtype", tensors_of_every_dtype())
    matrix = torch.arange(12.0).reshape(3, 4)
    save("shared", {"matrix": matrix, "transposed": matrix.t(), "row": matrix[1], "expanded": matrix[0, 1].expand(5),
                    "tied": torch.nn.Parameter(matrix), "scalar": torch.tensor(7.0), "empty": torch.empty(0, 3)})
    values = [1 + 2j, 3 - 4j]
    save("conjugated", {"conjugate": torch.tensor(values).conj(), "negative": torch.tensor(values).conj().imag})
    storage = torch.tensor([0, 1, 2], dtype=torch.uint8).untyped_storage()
    save("booleans", {"some": AsBool(storage), "same": AsBool(storage)})
    save("nested", {"epoch": 3, "rate": 0.5, "note": "text", "nothing": None, "large": 2**70, "yes": True,
                    "model": OrderedDict(weight=torch.ones(2)), "optimizer": {"state": {0: {"step": torch.tensor(5)}},
                    "param_groups": [{"lr": 0.1, "betas": (0.9, 0.99)}]}, "list": [torch.zeros(1), torch.ones(1)]})
    save("runs_code", {"weight": torch.ones(2), "evil": RunsCode()})
    save("whole_module", torch.nn.Linear(2, 2))
    save("tensor", torch.ones(2))
    save("legacy", {"weight": torch.ones(2)}, _use_new_zipfile_serialization=False)


def file_of(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def damaged_files():
    """Small safetensors files: valid ones, then invalid ones, then mutations of the valid ones."""
    entry = lambda begin, end, shape=None, dtype="U8": {
        "dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}
    valid = [
        file_of({}), file_of({"a": entry(0, 4)}, b"abcd"), file_of({"a": entry(0, 8, [2], "F32"), "b": entry(8, 9)}, b"x" * 9),
        file_of({"__metadata__": {"format": "pt"}, "a": entry(0, 2, [], "F16")}, b"ab"),
        file_of({"b": entry(2, 4), "a": entry(0, 2)}, b"abcd"), file_of({"a": entry(0, 0, [0, 3])}),
        file_of(b'{"\\u00e9":{"shape":[1],"dtype":"I8","data_offsets":[0,1]}}  ', b"x"),
    ]
    yield from valid
    yield from [
        b"", b"1234567", file_of(b""), file_of(b" {}"), file_of(b"{}\0"), file_of(b"[]"), file_of(b"{"), file_of(b"{}}"),
        file_of({"a": entry(1, 4)}, b"abcd"), file_of({"a": entry(0, 3), "b": entry(2, 4)}, b"abcd"),
        file_of({"a": entry(0, 4, [5])}, b"abcd"), file_of({"a": entry(0, 4)}, b"abcde"),
        file_of({"a": entry(0, 4, [2**62, 2**62])}, b"abcd"), file_of({"a": entry(0, 4, None, "Q8")}, b"abcd"),
        file_of({"a": entry(0, 4, [-4])}, b"abcd"), file_of({"a": entry(0, 4, [4.0])}, b"abcd"),
        file_of({"a": entry(0, 4, "4")}, b"abcd"), file_of({"__metadata__": {"n": 1}}), file_of({"a": 1}),
        file_of(b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 100_000_001) + b"{}", file_of(b'{"a":{"dtype":"U8","shape":[0]}}'),
        file_of(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}'), file_of({"a": entry(4, 0, [4])}, b"abcd"),
    ]
    draw = random.Random(0)
    for _ in range(400):
        file = bytearray(draw.choice(valid))
        for _ in range(draw.randint(1, 2)):
            at = draw.randrange(len(file))
            match draw.randrange(4):
                case 0: file[at] ^= 1 << draw.randrange(8)
                case 1: del file[at]
                case 2: file.insert(at, draw.choice(b'{}[]",:0123456789 x'))
                case 3: file[at] = draw.choice(b'{}[]",:0123456789 x')
        yield bytes(file)


def is_accepted(file):
    try:
        load(file)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError):
        return False
    return True


def write_verdicts():
    """Writes, for each file: whether the reference reader accepts it (1 byte), its length (4 bytes), and the file."""
    records = [(file, is_accepted(file)) for file in dict.fromkeys(damaged_files())]
    text = b"".join(struct.pack("<?I", accepted, len(file)) + file for file, accepted in records)
    (FOLDER / "verdicts.bin").write_bytes(text)
    print(f"{len(records)} files, {sum(accepted for _, accepted in records)} accepted, {len(text)} bytes")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_pytorch()
    save_file(tensors_of_every_dtype(), FOLDER / "every_dtype.safetensors", metadata={"format": "pt", "é": "ü\n"})
    write_verdicts()
    print(f"{sum(file.stat().st_size for file in FOLDER.iterdir())} bytes in all")
