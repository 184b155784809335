"""Reading: images to lines of text with confidences and positions. Knows nothing of ModelScope.

    from ms_ocr_handwritten import Recognizer
    recognizer = Recognizer.from_pretrained(model_dir)
    line = recognizer.read("line.png")
    line.text, line.score, line.chars
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from .backends import open_backend, torch_backend
from .backends.base import ColumnPath
from .ctc import collapse, line_score
from .errors import ConfigurationError, ImageError
from .geometry import COLUMN_WIDTH
from .image import Limits, LineCanvas, line_canvas, load_image
from .model_dir import ModelDir
from .vocab import Vocabulary

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Character:
    """One character: its confidence in [0, 1] and where it was found, x0 <= x1 in px of the source image.

    CTC marks a character by the columns where it is sure of it, often narrower than the ink: x0 and x1 span those.
    """

    character: str
    score: float
    x0: float
    x1: float


@dataclass(frozen=True)
class Line:
    """What was read: `score` in [0, 1] is the geometric mean of the characters' (see ctc.py for an empty line)."""

    text: str
    score: float
    chars: tuple[Character, ...]


class Recognizer:
    """Reads lines with one model; `backend` and `precision` say what was chosen."""

    def __init__(self, backend, vocabulary: Vocabulary, limits: Limits = Limits()) -> None:
        self._backend, self.vocabulary, self.limits = backend, vocabulary, limits
        logger.info("reading with %s, %s", backend.name, backend.precision)

    @property
    def backend(self) -> str:
        return self._backend.name

    @property
    def precision(self) -> str:
        return self._backend.precision

    @classmethod
    def from_pretrained(cls, model_dir: str | os.PathLike[str], backend: str = "auto", precision: str = "auto", *,
                        device: str | None = None, threads: int | None = None,
                        limits: Limits = Limits()) -> "Recognizer":
        """A recogniser for a model directory (configuration.json, vocab.txt, pytorch_model.pt or model.onnx).

        backend: "auto" (torch where there are weights for it, else onnxruntime), "torch" or "onnxruntime".
        precision: "auto" (fp32), "fp32" (the texts of ModelScope's builtin) or "bf16" (torch).
        device: "cpu", "gpu", "gpu:1" ... for torch; None takes a GPU if there is one.
        threads: of onnxruntime; None takes all cores.

        Raises ConfigurationError, VocabularyError, CheckpointError or BackendError.
        """
        model = ModelDir.open(model_dir)
        return cls(open_backend(model, backend, precision, device, threads), model.vocabulary, limits)

    @classmethod
    def from_network(cls, network, vocabulary: Vocabulary, precision: str = "auto", *, device: str | None = None,
                     limits: Limits = Limits()) -> "Recognizer":
        """A recogniser for a ConvNextViT that is loaded already; it is put into evaluation mode.

        device: as above, where the network is moved to; None leaves it where it is.
        """
        return cls(torch_backend(network, precision, device), vocabulary, limits)

    def read(self, image) -> Line:
        """Read one image of one line; `image` is anything that `load_image` takes. Raises ImageError."""
        (line,) = self.read_many([image])
        return line

    def read_many(self, images: Iterable, batch_size: int = 32, *, errors: str = "raise") -> Iterator[Line | ImageError]:
        """Read many images, in input order, `batch_size` at a time; memory does not grow with their number.

        errors: "raise" stops at the first image that cannot be read; "yield" gives its ImageError in its place.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}; at least 1 expected")
        if errors not in ("raise", "yield"):
            raise ConfigurationError(f"errors is {errors!r}; 'raise' or 'yield' expected")
        return self._read_batches(iter(images), batch_size, errors)

    def _read_batches(self, source: Iterator, batch_size: int, errors: str) -> Iterator[Line | ImageError]:
        while batch := list(islice(source, batch_size)):
            canvases = [self._canvas(image, errors) for image in batch]
            lines = iter(self.read_canvases([item for item in canvases if isinstance(item, LineCanvas)]))
            for item in canvases:
                yield next(lines) if isinstance(item, LineCanvas) else item

    def read_canvases(self, canvases: list[LineCanvas]) -> list[Line]:
        """Read lines that `line_canvas` prepared."""
        if not canvases:
            return []
        return [self._line(canvas, path) for canvas, path in zip(canvases, self._backend.read(canvases))]

    def _canvas(self, image, errors: str) -> LineCanvas | ImageError:
        try:
            return line_canvas(load_image(image, limits=self.limits))
        except ImageError as error:
            if errors == "raise":
                raise
            return error

    def _line(self, canvas: LineCanvas, path: ColumnPath) -> Line:
        ids, log_probs = path
        runs = collapse(ids, log_probs)
        chars = tuple(
            Character(character, run.score, canvas.source_x(run.start * COLUMN_WIDTH),
                      canvas.source_x(run.end * COLUMN_WIDTH))
            for run in runs
            if (character := self.vocabulary.character(run.id))
        )
        return Line("".join(char.character for char in chars), line_score(runs, log_probs), chars)
