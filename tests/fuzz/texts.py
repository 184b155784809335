"""configuration.json and vocab.txt: nested, huge, endless, of the wrong kind; and paths that lead to no file."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from ms_ocr_handwritten.backends import automatic_backend
from ms_ocr_handwritten.model_dir import ModelDir

from .case import READ, REFUSED, Case
from .mutate import mutated

ROOT = Path(__file__).parent.parent.parent
CONFIGURATION = (ROOT / "configuration.json").read_bytes()
VOCABULARY = "".join(f"{chr(0x4E00 + index)}\n" for index in range(500)).encode("utf-8")


def nested(depth: int, opened: str = "[", closed: str = "]") -> bytes:
    return (opened * depth + "1" + closed * depth).encode("ascii")


def with_value(value: str, *path: str) -> bytes:
    """The configuration with the text `value` at `path`."""
    raw = json.loads(CONFIGURATION)
    target = raw
    for name in path[:-1]:
        target = target.setdefault(name, {})
    target[path[-1]] = "@value@"
    return json.dumps(raw).replace('"@value@"', value).encode("utf-8")


def fifo(path: Path) -> None:
    os.mkfifo(path)


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


VALUES = [
    "NaN",
    "Infinity",
    "-1",
    "1e999",
    "9" * 400,
    "9" * 5000,
    '"text"',
    "[]",
    "{}",
    "true",
    '"\\ud800"',
    '"\\u0000"',
]
PLACES = [
    ("model", "network", "num_classes"),
    ("model", "network", "mlp_ratio"),
    ("model", "network", "dims"),
    ("train", "optimizer", "lr"),
    ("train", "work_dir"),
    ("train", "hooks"),
    ("train", "dataloader", "batch_size_per_gpu"),
    ("model",),
    ("model", "recognizer"),
]
Place = Callable[[Path], None]
SEEDS: list[tuple[str, dict[str, Place], str | None]] = [
    ("sound", {}, READ),
    *[
        (f"{name} as a pipe", {name: fifo}, REFUSED)
        for name in ("configuration.json", "vocab.txt", "model.onnx", "pytorch_model.pt")
    ],
    *[
        (f"{name} as {target}", {name: linked(target)}, REFUSED)
        for name in ("configuration.json", "vocab.txt", "model.onnx", "pytorch_model.pt")
        for target in ("/proc/kmsg", "/proc/self/mem", "/dev/zero", "/proc/self/environ", "/")
    ],
    *[
        (f"nested {depth} deep by {opened}", {"configuration.json": written(nested(depth, opened, closed))}, REFUSED)
        for depth in (100, 900, 5000, 100_000)
        for opened, closed in (("[", "]"), ('{"model":', "}"))
    ],
    ("configuration of 100 MB", {"configuration.json": written(b" " * 100_000_000)}, REFUSED),
    ("configuration of UTF-16", {"configuration.json": written(CONFIGURATION.decode().encode("utf-16"))}, REFUSED),
    ("vocabulary of 100 MB", {"vocab.txt": written(b"a\n" * 50_000_000)}, REFUSED),
    ("vocabulary of one line of 8 MB", {"vocab.txt": written(b"a" * 8_000_000)}, REFUSED),
    ("vocabulary of empty lines", {"vocab.txt": written(b"\n" * 8_000_000)}, REFUSED),
    ("vocabulary of Windows", {"vocab.txt": written(b"a\r\nb\r\n")}, REFUSED),
    ("vocabulary of surrogates", {"vocab.txt": written("\ud800\n".encode("utf-8", "surrogatepass"))}, REFUSED),
    *[
        (f"{'.'.join(path)} is {value[:12]}", {"configuration.json": written(with_value(value, *path))}, None)
        for path in PLACES
        for value in VALUES
    ],
]


def _open(folder: Path) -> None:
    model = ModelDir.open(folder)
    automatic_backend(model, "auto", "cpu", torch_imported=False)


def case(number: int, folder: Path) -> Case:
    changes: dict[str, Place] = {}
    if number < len(SEEDS):
        name, changes, expected = SEEDS[number]
    else:
        chance = random.Random(number)
        other = chance.choice(("configuration.json", "vocab.txt"))
        content = CONFIGURATION if other == "configuration.json" else VOCABULARY
        name, expected = f"mutated {other}", None
        changes = {other: written(mutated(chance, content, [VOCABULARY, CONFIGURATION]))}
    model = folder / "model"
    model.mkdir()
    for one, content in (
        ("configuration.json", CONFIGURATION),
        ("vocab.txt", VOCABULARY),
        ("pytorch_model.pt", b"weights"),
        ("model.onnx", b"onnx"),
    ):
        changes.get(one, written(content))(model / one)
    return Case(name, lambda: _open(model), expected)
