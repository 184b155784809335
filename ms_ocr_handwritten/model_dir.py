"""A model directory: which files it holds and what they are called."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import CONFIGURATION_FILE, RECOGNIZER, Configuration, read_json, recognizer_name
from .errors import CheckpointError, ConfigurationError
from .vocab import Vocabulary

WEIGHTS_FILES = ("pytorch_model.pt", "pytorch_model.bin")  # the first that exists is read; we write the first
ONNX_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
VOCABULARY_FILE = "vocab.txt"


def default_model_dir() -> str:
    """The embedded model, usable as `model=` everywhere. Raises CheckpointError if this installation has none."""
    folder = Path(__file__).parent / "assets"
    if not (folder / CONFIGURATION_FILE).exists():
        raise CheckpointError(
            f"{folder}: this installation holds no embedded model; install the package again, or name a model directory"
        )
    return str(folder)


@dataclass(frozen=True)
class ModelDir:
    """The configuration and vocabulary of a ConvNextViT model, checked against each other, and its weights' paths."""

    path: Path
    raw: dict[str, Any]
    configuration: Configuration
    vocabulary: Vocabulary

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "ModelDir":
        """Raises ConfigurationError or VocabularyError, naming the file."""
        path = Path(path)
        raw = read_json(path / CONFIGURATION_FILE)
        if recognizer_name(raw) != RECOGNIZER:
            raise ConfigurationError(
                f"{path / CONFIGURATION_FILE}: model.recognizer is {recognizer_name(raw)!r}; this "
                f"package reads {RECOGNIZER}, use ModelScope's pipeline for the others"
            )
        configuration = Configuration.parse(raw, str(path / CONFIGURATION_FILE))
        vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
        vocabulary.check_head(configuration.network.num_classes)
        return cls(path, raw, configuration, vocabulary)

    @property
    def weights(self) -> Path | None:
        return next((self.path / name for name in WEIGHTS_FILES if (self.path / name).exists()), None)

    @property
    def onnx(self) -> Path | None:
        file = self.path / ONNX_FILE
        return file if file.exists() else None

    @property
    def int8(self) -> Path | None:
        file = self.path / INT8_FILE
        return file if file.exists() else None

    def require_weights(self) -> Path:
        """The file of weights. Raises CheckpointError if there is none."""
        if self.weights is None:
            raise CheckpointError(
                f"{self.path}: holds no {WEIGHTS_FILES[0]}; download the model again, or name another model directory"
            )
        return self.weights
