"""The recogniser of one process among several, and which model it reads with."""

import hashlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import automatic_backend, check
from ..config_file import CONFIGURATION_FILE
from ..decoding.language_model import weights_file
from ..model_dir import INT8_FILE, ONNX_FILE, VOCABULARY_FILE, WEIGHTS_FILES, ModelDir, default_model_dir
from ..model_id import local_directory

if TYPE_CHECKING:
    from ..recognizer import Recognizer


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


def model_digest(model: "str | os.PathLike[str] | None") -> str:
    """A digest of what is read of a model directory (None: the embedded model); '' for an id."""
    folder = Path(default_model_dir() if model is None else model)
    if not folder.is_dir():
        return ""
    files = [folder / name for name in (CONFIGURATION_FILE, VOCABULARY_FILE, *WEIGHTS_FILES, ONNX_FILE, INT8_FILE)]
    own = ModelDir.open(folder).configuration.decoder.within(folder).language_model
    return content_digest([*files, *language_model_files(own)])


def language_model_files(language_model: "str | os.PathLike[str] | None") -> list[Path]:
    """The language model and the weights beside it, which `ms-ocr lm tune` writes; none for None."""
    return [] if language_model is None else [Path(language_model), weights_file(language_model)]


def content_digest(files: Iterable[Path]) -> str:
    """A digest of the names and contents of the files, those that are not there left out."""
    digest = hashlib.sha256()
    for path in filter(Path.is_file, files):
        with open(path, "rb") as file:
            digest.update(path.name.encode("utf-8", "surrogateescape"))
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()
