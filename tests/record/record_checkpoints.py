"""Records files that Python writes, and whether the reference reader accepts damaged files, for
tests/checkpoint/checkpoint_test.cpp.

Run: python tests/record/record_checkpoints.py   (writes tests/data/checkpoints; needs torch and safetensors)
"""

import io
import json
import os
import pathlib
import pickle
import random
import struct

import torch
from collections import Counter, OrderedDict
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


class Rebuilt:
    """A value that is pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def with_attribute(tensor):
    tensor.note = {"text": "attribute"}
    return tensor


def harmless_values():
    """What torch.load(weights_only=True) reads besides tensors in dicts and lists, and kinds of tensors."""
    weight = torch.arange(6.0).reshape(2, 3)
    sparse = torch.tensor([[0.0, 1, 0, 2], [3, 0, 0, 4], [0, 0, 0, 0], [0, 5, 0, 6]])
    return {"size": torch.Size([2, 3]), "device": torch.device("cuda", 1), "set": {1, 2}, "counter": Counter([30, 30, 80]), "complex": 1 + 2j,
            "bytes": b"\x00\xff", "bytearray": bytearray(b"ab"), "frozenset": Rebuilt(frozenset, [1, 2]), "layout": torch.sparse_coo,
            "dtype": torch.float8_e4m3fnuz, "attribute": with_attribute(weight.clone()), "parameter": with_attribute(torch.nn.Parameter(weight + 1)),
            "coo": sparse.to_sparse(), "coo_hybrid": sparse.to_sparse(1), "uncoalesced": torch.sparse_coo_tensor([[0, 0, 1]], [1.0, 2, 3], (3,)),
            "csr": sparse.to_sparse_csr(), "csc": sparse.to_sparse_csc(), "bsr": sparse.to_sparse_bsr((2, 2)), "bsc": sparse.to_sparse_bsc((2, 2)),
            "quantized": torch.quantize_per_tensor(weight, 0.5, 3, torch.quint8), "quantized_view": torch.quantize_per_tensor(weight, 0.5, 3, torch.qint8).t()[1:],
            "channels": torch.quantize_per_channel(weight, torch.tensor([0.25, 0.5]), torch.tensor([1, 2]), 0, torch.qint8),
            "quantized_int32": torch.quantize_per_tensor(weight, 0.01, 0, torch.qint32)}


def keys_of_every_kind():
    kinds = [None, True, 7, -(2**80), 0.5, 1.0, 1e-7, 1e22, 123456.789, (1, "a", (2.5,)), (), b"x'\n\xe9", 1 + 2j, 2j, torch.float32, torch.device("cpu"), "text", 2**64]
    return {key: torch.tensor(float(n)) for n, key in enumerate(kinds)} | {"no tensors": {0.5: []}}


def shared_containers():
    """A state dict under 8 names, a list of one tensor, deep nesting, long names."""
    model = {f"layers.{n}.weight": torch.full((2,), float(n)) for n in range(16)}
    deep, long = torch.tensor(1.0), "k" * 600
    for n in range(200):
        deep = {"d": deep} if n % 2 else [deep]
    cyclic = {"none": None}
    cyclic["self"] = cyclic
    tied = torch.ones(3)
    return {**{f"copy{n}": model for n in range(8)}, "list": [tied] * 200, "deep": deep, long: {f"{long}{n}": tied for n in range(12)}, "cyclic": cyclic}


def training_checkpoint():
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[30, 80])
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "epoch": 3}


def legacy_with_views():
    """A file as PyTorch 0.x wrote it under Python 2: text as bytes, OrderedDict of pairs, and storages that are parts of others."""
    text = lambda value: b"U" + bytes([len(value)]) + value.encode()
    storage = lambda view: b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("7") + text("cpu") + b"K\x06" + view + b"tQ"
    view = lambda offset, size: b"(" + text(f"7.{offset}") + b"K" + bytes([offset]) + b"K" + bytes([size]) + b"t"
    tensor = lambda view, offset, size: b"ctorch._utils\n_rebuild_tensor\n(" + storage(view) + b"K" + bytes([offset]) + b"K" + bytes([size]) + b"\x85K\x01\x85tR"
    pair = lambda name, value: b"]" + b"(" + text(name) + value + b"e"
    pairs = b"](" + pair("whole", tensor(b"N", 1, 5)) + pair("part", tensor(view(2, 3), 1, 2)) + b"e"
    header = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {"long": 4}}):
        pickle.dump(value, header, protocol=2)
    return (header.getvalue() + b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R." + b"\x80\x02](" + text("7") + b"e."
            + struct.pack("<q6f", 6, *range(6)))


def flattened(value, path=""):
    """The tensors of nested containers by name, dense."""
    if isinstance(value, torch.Tensor):
        value = value.detach().dequantize() if value.is_quantized else value.detach()
        yield path, value if value.layout == torch.strided else value.to_dense()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in items:
        if item is not value:
            yield from flattened(item, f"{path}.{key}" if path else str(key))


def write_what_torch_reads():
    """Files that torch.load(weights_only=True) reads, and in expected.safetensors the tensors that it finds in them."""
    files = {"harmless": (harmless_values(), {}), "harmless_protocol5": (harmless_values(), {"pickle_protocol": 5}), "keys": (keys_of_every_kind(), {}),
             "shared_containers": (shared_containers(), {}), "training": (training_checkpoint(), {}),
             # Python reads dtypes that are newer than the legacy format from no such file.
             "legacy_dtypes": ({name: tensor for name, tensor in tensors_of_every_dtype().items() if tensor.dtype not in torch.storage._new_dtypes()}, {"_use_new_zipfile_serialization": False}),
             "legacy_harmless": (harmless_values(), {"_use_new_zipfile_serialization": False}),
             "legacy_training": (training_checkpoint(), {"_use_new_zipfile_serialization": False})}
    for name, (value, options) in files.items():
        torch.save(value, FOLDER / f"{name}.pt", **options)
    (FOLDER / "legacy_views.pt").write_bytes(legacy_with_views())
    expected = {}
    with torch.serialization.safe_globals([frozenset]):
        for name in (*files, "legacy", "legacy_views"):
            # Python's restricted reader lacks most opcodes of protocol 5.
            options = {"weights_only": name != "harmless_protocol5"}
            for key, tensor in flattened(torch.load(FOLDER / f"{name}.pt", **options)):
                expected[f"{name}/{key}"] = tensor.contiguous().clone()
    save_file(expected, FOLDER / "expected.safetensors")


def file_of(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def damaged_files():
    """Returns small safetensors files: valid files, invalid files, and mutations of the valid files."""
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
    """Writes for each file whether the reference reader accepts it (1 byte), its length (4 bytes), and its contents."""
    records = [(file, is_accepted(file)) for file in dict.fromkeys(damaged_files())]
    text = b"".join(struct.pack("<?I", accepted, len(file)) + file for file, accepted in records)
    (FOLDER / "verdicts.bin").write_bytes(text)
    print(f"{len(records)} files, {sum(accepted for _, accepted in records)} accepted, {len(text)} bytes")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_pytorch()
    write_what_torch_reads()
    save_file(tensors_of_every_dtype(), FOLDER / "every_dtype.safetensors", metadata={"format": "pt", "é": "ü\n"})
    write_verdicts()
    print(f"{sum(file.stat().st_size for file in FOLDER.iterdir())} bytes in all")
