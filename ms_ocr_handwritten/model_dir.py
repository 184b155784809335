"""A model directory: its files and their names."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import Configuration
from .config_file import CONFIGURATION_FILE, read_json
from .errors import CheckpointError
from .files import check_regular
from .vocab import Vocabulary

WEIGHTS_FILES = ("pytorch_model.pt", "pytorch_model.bin")  # the first existing one is read; the first is written
ONNX_FILE = "model.onnx"
INT8_FILE = "model_int8.onnx"
VOCABULARY_FILE = "vocab.txt"


def default_model_dir() -> str:
    """The directory of the embedded model, usable as any `model=`. Raises CheckpointError if it is not installed.

    >>> sorted(os.listdir(default_model_dir()))
    ['README.md', 'configuration.json', 'model.onnx', 'pytorch_model.pt', 'vocab.txt']
    """
    folder = Path(__file__).parent / "assets"
    if not (folder / CONFIGURATION_FILE).exists():
        raise CheckpointError(
            f"{folder}: this installation holds no embedded model; install the package again, or name a model directory"
        )
    return str(folder)


@dataclass(frozen=True)
class ModelDir:
    """The configuration and vocabulary of a model, checked against each other, and its weights' paths."""

    path: Path
    raw: dict[str, Any]
    configuration: Configuration
    vocabulary: Vocabulary

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "ModelDir":
        """Open a model directory. Raises ConfigurationError or VocabularyError, naming the file."""
        path = Path(path)
        raw = read_json(path / CONFIGURATION_FILE)
        configuration = Configuration.parse(raw, str(path / CONFIGURATION_FILE))
        vocabulary = Vocabulary.load(path / VOCABULARY_FILE, configuration.network.first_id)
        vocabulary.check_head(configuration.network.num_classes)
        return cls(path, raw, configuration, vocabulary)

    @property
    def weights(self) -> Path | None:
        return next(filter(None, map(self._file, WEIGHTS_FILES)), None)

    @property
    def onnx(self) -> Path | None:
        return self._file(ONNX_FILE)

    @property
    def int8(self) -> Path | None:
        return self._file(INT8_FILE)

    def _file(self, name: str) -> Path | None:
        """The path of a file if it exists. Raises CheckpointError for a pipe or a device, which would never end."""
        try:
            empty = check_regular(self.path / name) == 0
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CheckpointError(f"{self.path / name}: cannot be read ({error.strerror or error})") from error
        if empty:  # files in /proc report size 0, too
            raise CheckpointError(f"{self.path / name}: is empty; copy or download it again")
        return self.path / name

    def require_weights(self) -> Path:
        """The weights file. Raises CheckpointError if there is none."""
        if self.weights is None:
            raise CheckpointError(
                f"{self.path}: holds no {WEIGHTS_FILES[0]}; download the model again, or name another model directory"
            )
        return self.weights
