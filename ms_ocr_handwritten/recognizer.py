"""Reading: images to lines of text with confidences and positions. Knows nothing of ModelScope.

from ms_ocr_handwritten import Recognizer
recognizer = Recognizer.from_pretrained(model_dir)
line = recognizer.read("line.png")
line.text, line.score, line.chars
"""

import functools
import logging
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from .backends import open_backend, torch_backend
from .backends.base import Backend, ColumnPath, Computed, Pending
from .ctc import collapse, line_score
from .errors import CheckpointError, ConfigurationError, ImageError
from .geometry import COLUMN_WIDTH, LINE_HEIGHT
from .image import Limits, LineCanvas, line_canvas, load_image
from .loading import Loaded, Stop, load_canvases
from .margins import advice, find_ink, inked_columns, trimmed
from .model_dir import ModelDir
from .model_id import local_directory
from .vocab import Vocabulary

logger = logging.getLogger(__name__)

TRIM = ("never", "auto")
LOOKED_AT = 100  # first images whose ink is looked for, to warn of wide margins and several lines
SHRUNK = 4 * LINE_HEIGHT  # px of height from which ink may fade where the picture is scaled: it is looked for before


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
    """Reads lines with one model; `backend` and `precision` say what was chosen.

    It can be pickled, by the directory and the options that it was made of: "auto" is chosen anew where it is loaded.
    In a process that was forked it opens its backend anew, or raises BackendError at once where that does not work.
    """

    def __init__(
        self,
        backend: Backend,
        vocabulary: Vocabulary,
        limits: Limits = Limits(),
        *,
        trim: str = "never",
        again: Callable[[], "Recognizer"] | None = None,
    ) -> None:
        """again: makes the same in another process; it is what is pickled."""
        if trim not in TRIM:
            raise ConfigurationError(f"trim is {trim!r}; {' or '.join(map(repr, TRIM))} expected")
        self.vocabulary, self.limits, self.trim, self._again = vocabulary, limits, trim, again
        self._opened = os.getpid(), backend
        self._warned, self._looked_at = False, 0
        logger.info("reading with %s, %s", backend.name, backend.precision)

    def __reduce__(self) -> tuple[Callable[[], "Recognizer"], tuple[()]]:
        if self._again is None:
            raise pickle.PicklingError("this Recognizer was made of a backend; make it by from_pretrained to pickle it")
        return self._again, ()

    @property
    def _backend(self) -> Backend:
        """What computes in this process; two threads that find themselves in a new one may both open it."""
        process, backend = self._opened
        if process != os.getpid():
            backend = backend.reopened()
            self._opened = os.getpid(), backend
        return backend

    @property
    def backend(self) -> str:
        return self._backend.name

    @property
    def precision(self) -> str:
        return self._backend.precision

    @classmethod
    def from_pretrained(
        cls,
        model_dir: str | os.PathLike[str],
        backend: str = "auto",
        precision: str = "auto",
        *,
        device: str | None = None,
        threads: int | None = None,
        limits: Limits = Limits(),
        trim: str = "never",
        revision: str | None = None,
    ) -> "Recognizer":
        """A recogniser for a model directory (configuration.json, vocab.txt, pytorch_model.pt or model.onnx) or an id.

        model_dir: a directory, of which nothing is asked of the network, or the id of a model of the hub (owner/name).
        backend: "torch", "onnxruntime", "openvino" (both read model.onnx and import no torch) or "auto": see
            `backends`.
        precision: "fp32" (the texts of ModelScope's builtin), "bf16", "bf16+fp32" (bf16, and once more in fp32 where
            that leaves the text in doubt), "fp16" (torch on a GPU), "int8" (onnxruntime) or "auto": "bf16+fp32" with
            torch on processors that multiply bf16 faster, else "fp32".
        device: "cpu", "gpu", "gpu:1" ... for torch; None takes a GPU if there is one.
        threads: of onnxruntime or OpenVINO; None takes all cores.
        trim: "never" reads the whole picture, as ModelScope's builtin does; "auto" cuts wide margins away first, where
            that is safe (see `margins`).
        revision: a branch or tag of an id; None takes ModelScope's default.

        Raises ConfigurationError, VocabularyError, CheckpointError or BackendError; HubError for an id that is not to
        be had.
        """
        model = ModelDir.open(local_directory(model_dir, revision))
        again = functools.partial(
            cls.from_pretrained,
            os.path.abspath(model.path),
            backend,
            precision,
            device=device,
            threads=threads,
            limits=limits,
            trim=trim,
        )
        opened = open_backend(model, backend, precision, device, threads)
        return cls(opened, model.vocabulary, limits, trim=trim, again=again)

    @classmethod
    def from_network(
        cls,
        network,
        vocabulary: Vocabulary,
        precision: str = "auto",
        *,
        device: str | None = None,
        limits: Limits = Limits(),
        trim: str = "never",
    ) -> "Recognizer":
        """A recogniser for a ConvNextViT that is loaded already; it is put into evaluation mode.

        device: as above, where the network is moved to; None leaves it where it is. limits, trim: as above.
        """
        again = functools.partial(
            cls.from_network, network, vocabulary, precision, device=device, limits=limits, trim=trim
        )
        return cls(torch_backend(network, precision, device), vocabulary, limits, trim=trim, again=again)

    def read(self, image) -> Line:
        """Read one image of one line; `image` is anything that `load_image` takes. Raises ImageError."""
        (line,) = self.read_canvases([self._canvas(image)])
        return line

    def read_many(
        self, images: Iterable, batch_size: int = 32, *, errors: str = "raise"
    ) -> Iterator[Line | ImageError]:
        """Read many images, in input order; memory does not grow with their number.

        Lines of all widths are computed together, as many as fill a batch of chunks, at most `batch_size` lines.
        Meanwhile the next images are loaded in other threads: up to twice `batch_size`, on a GPU three times, are taken
        from `images` ahead of the line that is given out, so an array must not be written to before its line has come.

        errors: "raise" stops at the first image that cannot be read, after the lines before it; "yield" gives its
        ImageError in its place. What `images` itself raises comes after the lines of the images before.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}; at least 1 expected")
        if errors not in ("raise", "yield"):
            raise ConfigurationError(f"errors is {errors!r}; 'raise' or 'yield' expected")
        if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(images, "read"):
            raise ImageError(f"read_many was given a single {type(images).__name__}; give a list, or call read")
        return self._read_groups(load_canvases(images, self._canvas, batch_size, stop=errors == "raise"), batch_size)

    def _read_groups(self, loaded: Iterator[Loaded], batch_size: int) -> Iterator[Line | ImageError]:
        begun: deque[tuple[list[Loaded], Pending[list[ColumnPath]]]] = deque()
        aside = 1 if self._backend.asynchronous else 0  # groups that are computed while others are given out
        for group in self._groups(loaded, batch_size):
            end = group.pop() if isinstance(group[-1], Stop) else None
            canvases = [item for item in group if isinstance(item, LineCanvas)]
            begun.append((group, self._backend.begin(canvases) if canvases else Computed([])))
            while len(begun) > (0 if end else aside):
                yield from self._lines_of(*begun.popleft())
            if isinstance(end, Stop):
                raise end.error
        while begun:
            yield from self._lines_of(*begun.popleft())

    def _groups(self, loaded: Iterator[Loaded], batch_size: int) -> Iterator[list[Loaded]]:
        """Lines that are computed together, and images that cannot be read in their places."""
        group: list[Loaded] = []
        chunks, full = 0, self._backend.chunks_per_batch
        for item in loaded:
            inked = item.inked if isinstance(item, LineCanvas) else 0
            if chunks and chunks + inked > full:  # a batch never grows beyond that, so neither does memory
                yield group
                group, chunks = [], 0
            group.append(item)
            chunks += inked
            if len(group) == batch_size or chunks >= full or isinstance(item, Stop):
                yield group
                group, chunks = [], 0
        if group:
            yield group

    def _lines_of(self, group: list[Loaded], pending: Pending[list[ColumnPath]]) -> Iterator[Line | ImageError]:
        paths = iter(pending.result())
        for item in group:
            if isinstance(item, LineCanvas):
                yield self._line(item, next(paths))
            elif isinstance(item, ImageError):
                yield item

    def read_canvases(self, canvases: list[LineCanvas]) -> list[Line]:
        """Read lines that `line_canvas` prepared."""
        if not canvases:
            return []
        return [self._line(canvas, path) for canvas, path in zip(canvases, self._backend.read(canvases))]

    def _canvas(self, image: object) -> LineCanvas:
        rgb = load_image(image, limits=self.limits)
        if self.trim == "never" and self._looked_at >= LOOKED_AT and len(rgb) < SHRUNK:
            return line_canvas(rgb)
        self._looked_at += 1
        ink = find_ink(rgb)
        crop, left = trimmed(rgb, ink) if self.trim == "auto" else (rgb, 0)
        self._warn(rgb, None if crop is not rgb else advice(ink))
        return replace(line_canvas(crop), source_left=left, ink=ink.columns if ink else 0.0)

    def _warn(self, rgb: np.ndarray, reason: str | None) -> None:
        """Once: the next one would say the same."""
        if reason and not self._warned:
            self._warned = True
            logger.warning("an image of %dx%d px %s (said once)", rgb.shape[1], rgb.shape[0], reason)

    def _line(self, canvas: LineCanvas, path: ColumnPath) -> Line:
        if not np.isfinite(path.log_probs).all():
            raise CheckpointError(
                f"the network finds values that are no numbers ({self.backend}, {self.precision}): its weights hold "
                "nan or inf, or are too large for the precision; take the weights of an earlier epoch, or 'fp32'"
            )
        runs = [run for run in collapse(path.ids, path.log_probs) if self.vocabulary.character(run.id)]
        chars = tuple(
            Character(
                self.vocabulary.character(run.id),
                run.score,
                canvas.source_x(run.start * COLUMN_WIDTH),
                canvas.source_x(run.end * COLUMN_WIDTH),
            )
            for run in runs
        )
        inked = inked_columns(canvas.grey[:, : canvas.width]) if canvas.ink is None and not runs else canvas.ink or 0.0
        return Line("".join(char.character for char in chars), line_score(runs, path.log_probs, inked), chars)
