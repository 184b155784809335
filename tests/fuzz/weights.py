"""Files of weights: pickles that would run code, archives that announce more than they hold, tensors of odd kinds."""

import io
import json
import os
import pickle
import random
import subprocess
import zipfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from ms_ocr_handwritten.config import Configuration
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.nets.weights import load_network

from .case import READ, REFUSED, Case
from .mutate import mutated

torch.set_num_threads(1)
RAN = "gs-ran"  # what code that runs leaves in the working directory; the worker looks for it
SIZES = {"depths": [1, 1, 1, 1], "dims": [8, 8, 8, 8], "embed_dim": 6, "blocks": 1, "heads": 1, "num_classes": 9}


class _Runs:
    """A pickle of this calls `function(*arguments)` when it is loaded."""

    def __init__(self, function: Callable, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@lru_cache(maxsize=1)
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return ConvNextViT(Configuration.parse({"model": {"network": SIZES}}).network).state_dict()


def saved(value, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def changed(name: str, value: torch.Tensor) -> bytes:
    return saved({**weights(), name: value})


def repacked(content: bytes, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    """An archive of PyTorch's with other content of some entries, named by the ends of their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for entry in old.infolist():
            data = next((data for end, data in entries.items() if entry.filename.endswith(end)), None)
            new.writestr(entry.filename, old.read(entry.filename) if data is None else data)
    return buffer.getvalue()


def bomb() -> bytes:
    """A compressed archive of a tensor of 1 GiB of zeros."""
    content, buffer = saved({"vitstr.head.bias": torch.zeros(9)}), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            with new.open(entry.filename, "w", force_zip64=True) as file:
                if entry.filename.endswith("data/0"):
                    for _ in range(1024):
                        file.write(bytes(2**20))
                else:
                    file.write(old.read(entry.filename))
    return buffer.getvalue()


def overlapping() -> bytes:
    """An archive of which a thousand entries share the same bytes."""
    content = saved({"a": torch.zeros(250_000)})
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        large = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        for number in range(1, 1000):
            copy = zipfile.ZipInfo(large.filename[:-1] + str(number))
            copy.header_offset, copy.file_size, copy.compress_size = (
                large.header_offset,
                large.file_size,
                large.file_size,
            )
            copy.CRC = large.CRC
            archive.filelist.append(copy)
            archive.NameToInfo[copy.filename] = copy
        archive._didModify = True
    return buffer.getvalue()


def network(**sizes) -> str:
    return json.dumps({"model": {"network": SIZES | sizes}})


def _kinds() -> list[tuple[str, Callable[[], bytes], str]]:
    head = "vitstr.head.bias"
    nested = lambda: changed(head, torch.nested.nested_tensor([torch.zeros(4), torch.zeros(5)]))  # noqa: E731
    return [
        ("meta", lambda: changed(head, torch.zeros(9, device="meta")), REFUSED),
        ("sparse", lambda: changed(head, torch.zeros(9).to_sparse()), REFUSED),
        ("quantised", lambda: changed(head, torch.quantize_per_tensor(torch.zeros(9), 0.1, 0, torch.qint8)), REFUSED),
        ("nested", nested, REFUSED),
        ("complex", lambda: changed(head, torch.zeros(9, dtype=torch.complex64)), REFUSED),
        ("whole numbers", lambda: changed(head, torch.zeros(9, dtype=torch.int64)), REFUSED),
        ("half precision", lambda: saved({name: value.half() for name, value in weights().items()}), READ),
        ("double precision", lambda: saved({name: value.double() for name, value in weights().items()}), READ),
    ]


FIT = network()
SEEDS: list[tuple[str, Callable[[], bytes], str | None, str]] = [
    ("sound", lambda: saved(weights()), READ, FIT),
    ("legacy", lambda: saved(weights(), legacy=True), READ, FIT),
    *[(name, build, expected, FIT) for name, build, expected in _kinds()],
    *[
        (f"pickle that calls {name}", build, REFUSED, FIT)
        for name, build in {
            "os.system": lambda: saved({"a": _Runs(os.system, f"touch {RAN}")}),
            "exec": lambda: saved({"a": _Runs(exec, f"open('{RAN}', 'w')")}),
            "a subprocess": lambda: saved({"a": _Runs(subprocess.check_call, ["touch", RAN])}),
            "open": lambda: saved({"a": _Runs(open, RAN, "w")}),
            "a method of Path": lambda: saved({"a": _Runs(Path.touch, Path(RAN))}),
            "exec, legacy": lambda: saved({"a": _Runs(exec, f"open('{RAN}', 'w')")}, legacy=True),
            "exec, bare": lambda: pickle.dumps({"a": _Runs(exec, f"open('{RAN}', 'w')")}),
            "exec, TorchScript": lambda: repacked(saved({}), **{"version": b"3"}, **{"data.pkl": pickle.dumps(_Runs(exec, "1"))}),
        }.items()
    ],
    ("compressed archive of 1 GiB", bomb, REFUSED, FIT),
    ("compressed, but small", lambda: repacked(saved(weights()), zipfile.ZIP_DEFLATED), REFUSED, FIT),
    ("overlapping entries", overlapping, REFUSED, FIT),
    ("pickle of 100 MB", lambda: repacked(saved(weights()), **{"data.pkl": b"\x80\x02" + b"N0" * 50_000_000}), REFUSED, FIT),
    ("pickle nested 100,000 deep", lambda: repacked(saved(weights()), **{"data.pkl": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."}), REFUSED, FIT),
    ("no memory for a storage", lambda: _larger(2**40), REFUSED, FIT),
    ("a storage larger than its entry", lambda: _larger(2**20), REFUSED, FIT),
    ("one number spread over 10^12", lambda: changed("vitstr.head.weight", torch.zeros(1).expand(10**6, 10**6)), REFUSED, network(num_classes=10**6, embed_dim=10**6)),
    ("mlp_ratio of 10^6", lambda: saved(weights()), REFUSED, network(mlp_ratio=1e6)),
    ("mlp_ratio of 10^300", lambda: saved(weights()), REFUSED, network(mlp_ratio=1e300)),
    ("12000 dims", lambda: saved(weights()), REFUSED, network(dims=[8, 8, 8, 12_000])),
    ("10^17 dims", lambda: saved(weights()), REFUSED, network(dims=[10**17] * 4)),
    ("6*10^7 classes", lambda: saved(weights()), REFUSED, network(num_classes=6 * 10**7)),
    ("10^6 blocks", lambda: saved(weights()), REFUSED, network(blocks=10**6)),
    ("10^17 blocks", lambda: saved(weights()), REFUSED, network(depths=[1, 1, 1, 10**17])),
    ("10^17 heads", lambda: saved(weights()), REFUSED, network(heads=10**17, embed_dim=10**17)),
    ("TorchScript", lambda: _script(), REFUSED, FIT),
    ("a list", lambda: saved([weights()]), REFUSED, FIT),
    ("a text", lambda: saved("weights"), REFUSED, FIT),
    ("empty", lambda: b"", REFUSED, FIT),
]  # fmt: skip


def _larger(size: int) -> bytes:
    """The weights, of which one storage says that it has `size` numbers."""
    content = saved({"a": torch.zeros(1000)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        pickled = archive.read(name)
    number = b"\x8a\x06" + size.to_bytes(6, "little")
    return repacked(content, **{"data.pkl": pickled.replace(b"M\xe8\x03", number)})


def _script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _contents() -> list[bytes]:
    return [saved(weights()), saved(weights(), legacy=True), saved({"state_dict": weights(), "epoch": 3})]


def _damaged(chance: random.Random) -> bytes:
    content = chance.choice(_contents())
    if content[:2] != b"PK" or chance.random() < 0.3:
        return mutated(chance, content, _contents())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # a sound archive around a damaged pickle
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return repacked(content, **{"data.pkl": mutated(chance, archive.read(name), _contents()[1:2])})


def case(number: int, folder: Path) -> Case:
    if number < len(SEEDS):
        name, build, expected, configuration = SEEDS[number]
        content = build()
    else:
        name, content, expected, configuration = "damaged", _damaged(random.Random(number)), None, FIT
    path = folder / "pytorch_model.pt"
    path.write_bytes(content)
    config = Configuration.parse(json.loads(configuration)).network

    def attempt() -> None:
        before = os.getcwd()
        os.chdir(folder)  # where code that runs leaves its trace
        try:
            load_network(config, path)
        finally:
            os.chdir(before)

    return Case(name, attempt, expected)
