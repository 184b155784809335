"""The identity of a training: digests of its initial weights, vocabulary and data, and all settings that affect it.

It is part of the saved state, so that another training in the same work_dir is refused instead of mixed with it. It
covers content, not paths, so a work_dir and its data may be moved.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..config import TrainConfig
from ..data.reader import LineReader
from ..errors import DataError
from .distributed import Ranks
from .optimisation import learning_plan

WEIGHTS, TRAINING, REHEARSED, SETTINGS = "initial weights", "training set", "rehearsed set", "settings"


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of all names, shapes and values, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


def lines_digest(reader: LineReader) -> str:
    """SHA-256 of all images and labels in order, in hexadecimal; reads the whole LMDB once."""
    digest = hashlib.sha256()
    for index in range(len(reader)):
        for read in (reader.image_bytes, lambda i: reader.label(i).encode("utf-8")):
            try:
                value = read(index)
            except DataError:  # reported or skipped during training
                value = b"unreadable"
            digest.update(len(value).to_bytes(8, "little"))
            digest.update(value)
    return digest.hexdigest()


def lines_digests(readers: Sequence[LineReader], ranks: Ranks) -> list[str]:
    """The digest of each LMDB, computed by rank 0 for all."""
    known: dict[str, str] = {}
    for reader in readers if ranks.first else ():
        known.setdefault(reader.path, lines_digest(reader))
    return ranks.gather([known[reader.path] for reader in readers] if ranks.first else [])[0]


def settings_of(config: TrainConfig, network: Any, bf16: bool, processes: int) -> dict[str, Any]:
    """All settings that affect the trained weights; not those for saving, logging, evaluating or stopping."""
    loader, optimizer = config.dataloader, config.optimizer
    settings = {
        **learning_plan(optimizer, config.scheduler),
        "train.optimizer.options": {
            "max_norm": optimizer.max_norm,
            "norm_type": optimizer.norm_type,
            "cumulative_iters": optimizer.cumulative_iters,
        },
        "train.dataloader.batch_size_per_gpu": loader.batch_size_per_gpu,
        "train.dataloader.shuffle": loader.shuffle,
        "train.dataloader.drop_last": loader.drop_last,
        "train.precision": "bf16" if bf16 else "fp32",
        **{
            f"train.{name}": getattr(config, name)
            for name in (
                "seed",
                "ema_decay",
                "skip_padding",
                "augment",
                "freeze",
                "unknown_characters",
                "unalignable",
                "on_bad_sample",
            )
        },
        "train.rehearsal.share": config.rehearsal.share if config.rehearsal.lmdb else None,
        "model.network": dataclasses.asdict(network),
        "the number of processes": processes,
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as when loaded


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two identities, for a message."""
    found = ["the initial weights differ"] if then.get(WEIGHTS) != now[WEIGHTS] else []
    for name in (TRAINING, REHEARSED):
        before, after = then.get(name), now[name]
        if before == after:
            continue
        if isinstance(before, list) and len(before) == len(after):
            others = [str(number) for number, pair in enumerate(zip(before, after), 1) if pair[0] != pair[1]]
            found.append(f"{name} {' and '.join(others)} of {len(after)} holds different lines")
        else:
            count = len(before) if isinstance(before, list) else "unknown"
            found.append(f"the number of {name}s was {count}, is {len(after)}")
    settings = then.get(SETTINGS)
    settings = settings if isinstance(settings, Mapping) else {}
    for name, value in now[SETTINGS].items():
        if settings.get(name) != value:
            found.append(f"{name} was {settings.get(name)}, is {value}")
    return found
