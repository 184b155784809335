"""The recogniser of one process among several, and which files it reads."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import automatic_backend, check
from ..model_dir import ModelDir, default_model_dir
from ..model_id import local_directory

if TYPE_CHECKING:
    from ..recognizer import Recognizer

ModelFiles = tuple[tuple[str, int, int], ...]  # name, bytes, time of the last change in ns


def open_recognizer(
    model: "str | os.PathLike[str] | None", backend: str, precision: str, *, threads: int | None, **options: Any
) -> "Recognizer":
    """The recogniser of `model` (None: the embedded one) with that many threads of whatever computes; None: all.

    options: as for `Recognizer.from_pretrained`, which says what this raises.
    """
    from ..recognizer import Recognizer

    path = local_directory(default_model_dir() if model is None else model)
    check(backend, precision)
    if threads is not None:
        imported = "torch" in sys.modules
        if backend == "auto":
            chosen, _ = automatic_backend(ModelDir.open(path), precision, options.get("device"), imported)
        else:
            chosen = backend
        if chosen == "torch":
            import torch

            torch.set_num_threads(threads)
            backend, threads = "torch", None
    return Recognizer.from_pretrained(path, backend, precision, threads=threads, **options)


def model_files(model: "str | os.PathLike[str] | None") -> ModelFiles:
    """The files of a model directory; nothing of an id."""
    folder = Path(default_model_dir() if model is None else model)
    if not folder.is_dir():
        return ()
    stats = {entry.name: entry.stat() for entry in os.scandir(folder) if entry.is_file()}
    return tuple((name, stats[name].st_size, stats[name].st_mtime_ns) for name in sorted(stats))
