"""What the tests of the learning side share: configurations, tiny trainings, weights, snapshots of folders."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from conftest import png, render
from torch import Tensor

from ms_ocr_handwritten.lmdb.store import LmdbReader, write_lmdb
from ms_ocr_handwritten.model_dir import ModelDir
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.nets.weights import load_network
from ms_ocr_handwritten.training.dataset import LineDataset
from ms_ocr_handwritten.training.loop import Training
from ms_ocr_handwritten.training.setup import prepare_training

torch.set_num_threads(1)  # the networks are tiny: more threads wait for each other, above all on a busy machine


def read_raw(model_dir: Path) -> dict[str, Any]:
    return json.loads((model_dir / "configuration.json").read_text(encoding="utf-8"))


def training_raw(model_dir: Path, **train: Any) -> dict[str, Any]:
    """The directory's configuration with a short, plain training in place of its own; `train` overrides that."""
    raw = read_raw(model_dir)
    raw["train"] = {
        "max_epochs": 2,
        "dataloader": {"batch_size_per_gpu": 8},
        "optimizer": {"type": "AdamW", "lr": 1e-3},
        **train,
    }
    raw["evaluation"] = {"dataloader": {"batch_size_per_gpu": 16}}
    return raw


def prepare(
    model_dir: Path,
    lines: Path | Sequence[Path],
    work_dir: Path,
    evaluation: Sequence[Path] = (),
    network: ConvNextViT | None = None,
    **train: Any,
) -> Training:
    """A training as `training_raw` says, of the lines of one LMDB or several."""
    lines = [lines] if isinstance(lines, Path) else lines
    return prepare_training(model_dir, training_raw(model_dir, **train), lines, evaluation, work_dir, network=network)


def lmdb_of(path: Path, texts: Sequence[str], images: Sequence[bytes] | None = None) -> Path:
    """An LMDB of rendered `texts`, or of `images` with these labels."""
    write_lmdb(path, list(zip(images or [png(render(text)) for text in texts], texts, strict=True)))
    return path


def dataset_of(model_dir: Path, *paths: Path, **options: Any) -> LineDataset:
    return LineDataset([LmdbReader(path) for path in paths], ModelDir.open(model_dir).vocabulary, **options)


def network_of(model_dir: Path) -> ConvNextViT:
    files = ModelDir.open(model_dir)
    return load_network(files.configuration.network, files.require_weights())


def read_weights_file(path: Path) -> dict[str, Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_equal_weights(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert found.keys() == expected.keys()
    unequal = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not unequal, f"{len(unequal)} of {len(found)} differ: {unequal[:3]}"


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `folder`, by its path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def log(work_dir: Path) -> list[dict[str, Any]]:
    """The entries of its train_log.jsonl."""
    return [json.loads(line) for line in (work_dir / "train_log.jsonl").read_text(encoding="utf-8").splitlines()]
