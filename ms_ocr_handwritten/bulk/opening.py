"""The recogniser of one process among several, and the identity of its model."""

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import automatic_backend, check
from ..config import Configuration
from ..config_file import CONFIGURATION_FILE
from ..errors import OcrError
from ..model_dir import INT8_FILE, ONNX_FILE, VOCABULARY_FILE, WEIGHTS_FILES, ModelDir, default_model_dir
from ..model_id import local_directory

if TYPE_CHECKING:
    from ..recognizer import Recognizer


def open_recognizer(
    model: "str | os.PathLike[str] | None", backend: str, precision: str, *, threads: int | None, **options: Any
) -> "Recognizer":
    """The recogniser of `model` (None: the embedded one) with that many threads, whatever the backend; None: all.

    options: as for `Recognizer.from_pretrained`, which lists the errors raised.
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
    """A digest of the files used of a model directory (None: the embedded model); '' for an id."""
    folder = Path(default_model_dir() if model is None else model)
    if not folder.is_dir():
        return ""
    names = (CONFIGURATION_FILE, VOCABULARY_FILE, *WEIGHTS_FILES, ONNX_FILE, INT8_FILE)
    language_model = None
    with suppress(OcrError):  # opening reports what is wrong
        language_model = Configuration.load(folder).decoder.within(folder).language_model
    return _digest({name: folder / name for name in names} | _files_of(language_model))


def decoding_digest(language_model: "str | os.PathLike[str] | None", lexicon: object) -> str:
    """A digest of the files that affect decoding; '' if there are none."""
    files = _files_of(language_model)
    if isinstance(lexicon, (str, os.PathLike)):
        files["lexicon"] = Path(lexicon)
    return _digest(files) if files else ""


def _files_of(language_model: "str | os.PathLike[str] | None") -> dict[str, Path]:
    """A language model and its weights, by role."""
    if language_model is None:
        return {}
    from ..decoding.language_model import weights_file

    return {"language model": Path(language_model), "its weights": weights_file(language_model)}


def _digest(files: dict[str, Path]) -> str:
    """A digest of the content of the files that exist."""
    digest = hashlib.sha256()
    for name, path in files.items():
        if path.is_file():
            with open(path, "rb") as file:
                digest.update(name.encode())
                while block := file.read(2**20):
                    digest.update(block)
    return digest.hexdigest()
