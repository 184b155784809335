"""The recogniser: from images to lines of text with confidences and positions, independent of ModelScope.

from ms_ocr_handwritten import Recognizer
recognizer = Recognizer.from_pretrained(model_dir)
line = recognizer.read("line.png")
line.text, line.score, line.chars
"""

import functools
import logging
import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from .backends import open_backend, torch_backend
from .backends.base import Backend
from .backends.one_thread import OneThread
from .config import DecoderConfig
from .decoding.candidates import Candidates, Wanted
from .decoding.decoder import Decoder, Decoding, open_decoding
from .errors import ConfigurationError, ImageError
from .geometry import LINE_HEIGHT, Layout
from .image import Limits, LineCanvas, line_canvas, load_image
from .image.limits import shortened
from .image.loading import load_canvases
from .image.margins import advice, find_ink, thumbnail, trimmed
from .image.views import VIEWS
from .line import Character, Line
from .model_dir import ModelDir
from .model_id import local_directory
from .reading import LinesReader
from .vocab import Vocabulary

if TYPE_CHECKING:
    from .nets.network import Network

__all__ = ["Character", "Line", "Recognizer"]

logger = logging.getLogger(__name__)

Lexicon = str | os.PathLike[str] | Iterable[str]

TRIM = ("never", "auto")
LOOKED_AT = 100  # number of first images checked for wide margins and several lines
SHRUNK = 4 * LINE_HEIGHT  # px; from this height on scaling may lose faint ink, so a thumbnail is kept


class Recognizer:
    """Reads lines with one model; `backend` and `precision` are those selected.

    It is pickled as the directory and options it was created from, so "auto" is resolved again on unpickling.
    In a forked process it reopens its backend, or raises BackendError at once if that is not possible.
    """

    def __init__(
        self,
        backend: Backend,
        vocabulary: Vocabulary,
        limits: Limits = Limits(),
        *,
        trim: str = "never",
        decoding: Decoding | None = None,
        augment_below: float = 0.0,
        again: Callable[[], "Recognizer"] | None = None,
    ) -> None:
        """Create a recogniser from its parts; most callers want `from_pretrained`.

        Args:
            backend: computes the network's output for each column of a line.
            vocabulary: the one the network was trained with.
            limits: image sizes above which images are refused.
            trim: as in `from_pretrained`.
            decoding: how columns are decoded to text; None uses the best path unless a call asks for more.
            augment_below: as in `from_pretrained`, but 0 by default.
            again: creates the same recogniser in another process; this is what gets pickled.

        Raises:
            ConfigurationError: `trim` or `augment_below` has an invalid value.
        """
        if trim not in TRIM:
            raise ConfigurationError(f"trim is {trim!r}; {' or '.join(map(repr, TRIM))} expected")
        self.vocabulary, self.limits, self.trim, self._again = vocabulary, limits, trim, again
        if not 0 <= augment_below < 1:
            raise ConfigurationError(f"augment_below is {augment_below}; a score from 0 to less than 1 expected")
        self.augment_below = augment_below
        self._decoding = decoding or Decoding(vocabulary)
        self._opened = os.getpid(), backend
        self._warned, self._looked_at = False, 0
        logger.info("reading with %s, %s", backend.name, backend.precision)

    def __reduce__(self) -> tuple[Callable[[], "Recognizer"], tuple[()]]:
        if self._again is None:
            raise pickle.PicklingError("this Recognizer was made from a backend; use from_pretrained to pickle it")
        return self._again, ()

    @property
    def _backend(self) -> Backend:
        """The backend of this process; after a fork, two threads may both reopen it."""
        process, backend = self._opened
        if process != os.getpid():
            backend = backend.reopened()
            self._opened = os.getpid(), backend
        return backend

    @property
    def layout(self) -> Layout:
        """How its network expects lines."""
        return self._backend.layout

    @property
    def backend(self) -> str:
        return self._backend.name

    @property
    def precision(self) -> str:
        return self._backend.precision

    @property
    def width_per_batch(self) -> int:
        """Total width in px of a batch of lines (`LineCanvas.computed_width`) that is large enough to be fast."""
        return self._backend.width_per_batch

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
        language_model: str | os.PathLike[str] | None = None,
        augment_below: float | None = None,
    ) -> "Recognizer":
        """Load a model directory (configuration.json, vocab.txt, pytorch_model.pt or model.onnx) or a model id.

        Args:
            model_dir: a directory, which is read offline, or the id of a model on the hub (owner/name).
            backend: "torch", "onnxruntime", "openvino" (the last two read model.onnx and do not import torch) or
                "auto": see `backends`.
            precision: "fp32" (same texts as ModelScope's builtin), "bf16", "bf16+fp32" (bf16, repeated in fp32 if
                that leaves the text in doubt), "fp16" (torch on a GPU), "int8" (onnxruntime) or "auto":
                "bf16+fp32" with torch on processors that multiply bf16 faster, else "fp32".
            device: "cpu", "gpu", "gpu:1" ... for torch; None uses a GPU if there is one.
            threads: number of threads of onnxruntime or OpenVINO; None uses all cores.
            limits: image sizes above which images are refused.
            trim: "never" reads the whole image, as ModelScope's builtin does; "auto" first crops wide margins
                if that is safe (see `image.margins`).
            revision: a branch or tag of a model id; None uses ModelScope's default.
            language_model: a character n-gram model (`ms-ocr lm build`) used to decode every line; None uses the
                one named in the configuration's section `decoder`, if any.
            augment_below: test-time augmentation: a line that scores below this value, in [0, 1), is also read in
                other views (see `image.views`), and the text with the least expected edit distance to all is taken;
                0 reads each line once, None uses the value in the configuration's section `decoder`.

        Raises:
            ConfigurationError, VocabularyError, CheckpointError: a file of the model is missing or invalid.
            LanguageModelError: the language model cannot be read.
            BackendError: the backend or precision is not available here.
            HubError: neither the hub nor ModelScope's cache has the id.
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
            language_model=None if language_model is None else os.path.abspath(language_model),
            augment_below=augment_below,
        )
        decoder = model.configuration.decoder.within(model.path)
        decoding = open_decoding(model.vocabulary, decoder, language_model)
        opened = open_backend(model, backend, precision, device, threads)
        below = decoder.augment_below if augment_below is None else augment_below
        return cls(opened, model.vocabulary, limits, trim=trim, decoding=decoding, augment_below=below, again=again)

    @classmethod
    def from_network(
        cls,
        network: "Network",
        vocabulary: Vocabulary,
        precision: str = "auto",
        *,
        device: str | None = None,
        limits: Limits = Limits(),
        trim: str = "never",
        language_model: str | os.PathLike[str] | None = None,
        augment_below: float | None = None,
        decoder: DecoderConfig = DecoderConfig(),
    ) -> "Recognizer":
        """Create a recogniser for a network that is already loaded; it is put into evaluation mode.

        Args:
            network: run by the torch backend.
            vocabulary: the one the network was trained with.
            precision, limits, trim, language_model, augment_below: as in `from_pretrained`.
            device: the device to move the network to; None leaves it where it is.
            decoder: the configuration's section `decoder`.

        Raises:
            ConfigurationError: `trim` or `augment_below` has an invalid value.
            LanguageModelError: the language model cannot be read.
            BackendError: the precision is not available on the device.
        """
        again = functools.partial(
            cls.from_network,
            network,
            vocabulary,
            precision,
            device=device,
            limits=limits,
            trim=trim,
            language_model=None if language_model is None else os.path.abspath(language_model),
            augment_below=augment_below,
            decoder=decoder,
        )
        decoding = open_decoding(vocabulary, decoder, language_model)
        opened = torch_backend(network, precision, device)
        below = decoder.augment_below if augment_below is None else augment_below
        return cls(opened, vocabulary, limits, trim=trim, decoding=decoding, augment_below=below, again=again)

    def computed_in(self, thread: Executor) -> "Recognizer":
        """The same recogniser for use from several threads: the network runs only in `thread`.

        On a CPU, PyTorch is slow when called from different threads in turn. On a GPU nothing changes.

        Args:
            thread: a single-threaded executor in which this recogniser was opened; it must not have read elsewhere.
        """
        backend = self._backend
        return Recognizer(
            backend if backend.asynchronous else OneThread(backend, thread),
            self.vocabulary,
            self.limits,
            trim=self.trim,
            decoding=self._decoding,
            augment_below=self.augment_below,
            again=self._again,
        )

    def read(
        self,
        image: object,
        n_best: int = 1,
        allowed: Iterable[str] | None = None,
        lexicon: Lexicon | None = None,
        lexicon_mode: str = "line",
    ) -> Line:
        """Read one image of one line; `image` is anything that `load_image` accepts.

        Args:
            image: an image of one line.
            n_best: maximum number of texts in `Line.alternatives`.
            allowed: the characters that may be read, such as "0123456789"; None allows all.
            lexicon: the texts that may be read: a file with one entry per line, or strings; None allows all.
            lexicon_mode: "line": the text is one entry; "words": a sequence of entries, or empty.

        Raises:
            ConfigurationError: `n_best` or `lexicon_mode` has an invalid value.
            ImageError: it cannot be read as an image.
            LexiconError: no text is possible under `allowed` and `lexicon`.

        >>> import cv2
        >>> from ms_ocr_handwritten import Recognizer, default_model_dir
        >>> picture = cv2.putText(np.full((48, 130), 255, np.uint8), "2026", (12, 38), 0, 1.3, 0, 2)
        >>> line = Recognizer.from_pretrained(default_model_dir()).read(picture)
        >>> line.text, round(line.score, 1), [char.character for char in line.chars]
        ('2026', 1.0, ['2', '0', '2', '6'])
        """
        decoder = self._decoding.decoder(n_best, allowed, lexicon, lexicon_mode)
        (line,) = self._reader(decoder).begin([self.canvas(image)]).result()
        return line

    @overload
    def read_many(
        self,
        images: Iterable,
        batch_size: int = 32,
        *,
        errors: Literal["raise"] = "raise",
        n_best: int = 1,
        allowed: Iterable[str] | None = None,
        lexicon: Lexicon | None = None,
        lexicon_mode: str = "line",
    ) -> Iterator[Line]: ...

    @overload
    def read_many(
        self,
        images: Iterable,
        batch_size: int = 32,
        *,
        errors: str,
        n_best: int = 1,
        allowed: Iterable[str] | None = None,
        lexicon: Lexicon | None = None,
        lexicon_mode: str = "line",
    ) -> Iterator[Line | ImageError]: ...

    def read_many(
        self,
        images: Iterable,
        batch_size: int = 32,
        *,
        errors: str = "raise",
        n_best: int = 1,
        allowed: Iterable[str] | None = None,
        lexicon: Lexicon | None = None,
        lexicon_mode: str = "line",
    ) -> Iterator[Line | ImageError]:
        """Read many images, in input order, with constant memory.

        Lines of different widths share a batch: as many as fill it, at most `batch_size` lines.
        Meanwhile the next images are loaded in other threads: up to twice `batch_size`, on a GPU three times, are taken
        from `images` ahead of the line being yielded, so do not modify an array before its line has been yielded.

        Args:
            images: each is anything that `load_image` accepts. An exception of the iterable itself is raised after the
                lines of the preceding images.
            batch_size: maximum number of lines in a batch.
            errors: "raise" stops at the first image that cannot be read, after the lines before it; "yield" yields its
                ImageError in its place.
            n_best, allowed, lexicon, lexicon_mode: as in `read`.

        Raises:
            ConfigurationError: an option has an invalid value.
            ImageError: with errors="raise", an image cannot be read; or `images` is a single image.
            LexiconError: no text is possible under `allowed` and `lexicon`.

        >>> import cv2
        >>> from ms_ocr_handwritten import Recognizer, default_model_dir
        >>> paper = np.full((48, 130), 255, np.uint8)
        >>> pictures = [cv2.putText(paper.copy(), text, (12, 38), 0, 1.3, 0, 2) for text in ("25", "70")]
        >>> recognizer = Recognizer.from_pretrained(default_model_dir())
        >>> [line.text for line in recognizer.read_many(pictures)]
        ['25', '70']
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}; at least 1 expected")
        if errors not in ("raise", "yield"):
            raise ConfigurationError(f"errors is {errors!r}; 'raise' or 'yield' expected")
        if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike)) or hasattr(images, "read"):
            raise ImageError(f"read_many was given a single {type(images).__name__}; give a list, or call read")
        decoder = self._decoding.decoder(n_best, allowed, lexicon, lexicon_mode)
        loaded = load_canvases(images, self.canvas, batch_size, stop=errors == "raise")
        return self._reader(decoder).read(loaded, batch_size)

    def _reader(self, decoder: Decoder | None) -> LinesReader:
        return LinesReader(self._backend, self.vocabulary, decoder, self.augment_below)

    def read_canvases(self, canvases: list[LineCanvas]) -> list[Line]:
        """Read lines prepared by `canvas`, or by `line_canvas` for this recogniser's `layout`."""
        return self._reader(self._decoding.decoder()).begin(canvases).result()

    def candidates(self, image: object) -> Candidates:
        """The decoder's input for one image of one line: the most likely classes of each column."""
        (columns,) = self._backend.begin_candidates([self.canvas(image)], Wanted()).result()
        return columns

    def canvas(self, image: object) -> LineCanvas:
        """Prepare an image, anything that `load_image` accepts, for `read_canvases`. Raises ImageError."""
        rgb = load_image(image, limits=self.limits)
        crop, left = rgb, 0
        if self.trim == "auto" or (self._looked_at < LOOKED_AT and not self._warned):
            self._looked_at += 1
            ink = find_ink(rgb)
            if self.trim == "auto":
                crop, left = trimmed(rgb, ink)
            self._warn(image, rgb, None if crop is not rgb else advice(ink))
        small = thumbnail(crop) if len(crop) >= SHRUNK else None
        canvas = line_canvas(crop, self.layout)
        views = [view.scaled(crop, self.layout) for view in (VIEWS if self.augment_below else ())]
        return replace(canvas, source_left=left, thumbnail=small, views=tuple(views))

    def _warn(self, image: object, rgb: np.ndarray, reason: str | None) -> None:
        """Log the warning only once per recogniser."""
        if reason and not self._warned:
            self._warned = True
            name = f"{shortened(image)}: " if isinstance(image, (str, os.PathLike)) else ""
            logger.warning("%san image of %dx%d px %s (said once)", name, rgb.shape[1], rgb.shape[0], reason)
