"""Images to what the page shows of them: the open recognisers, and the reading of a line or a page."""

import base64
import binascii
import functools
import importlib.util
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import ConfigurationError, ImageError
from ..image import Limits, load_image
from ..image.limits import PAGE_LIMITS, check_bytes
from ..image.margins import advice, find_ink, trimmed
from ..image.straighten import cut_line
from ..line import Line
from ..lmdb.build import encode_line
from ..page.detector import RAPIDOCR, Detector, open_detector
from ..page.reader import PageCharacter, PageLine, PageReader, borders
from ..recognizer import Recognizer

_KEPT_OPEN = 2  # recognisers; one of official size takes about 300 MB
_DATA_URL = "data:image/png;base64,"


@dataclass(frozen=True, eq=False)
class ReadPicture:
    """An image and its reading.

    rgb: uint8 (H, W, 3)
    of_line: whether it was read as a line
    lines: one for a line image; polygons in px of `rgb`
    alternatives: (text, log-probability) for a line image
    advice: why the image is not suitable as one line of text, '' if it is
    """

    rgb: np.ndarray
    of_line: bool
    lines: tuple[PageLine, ...]
    alternatives: tuple[tuple[str, float], ...] = ()
    advice: str = ""

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)

    def line_pictures(self) -> list[bytes]:
        """Each line of a page as a PNG, cut out and straightened."""
        bgr = cv2.cvtColor(self.rgb, cv2.COLOR_RGB2BGR)
        return [encode_line(cut_line(bgr, line.polygon)) for line in self.lines]


class Recognizers:
    """The recognisers of the available models; the most recently used ones stay open."""

    def __init__(
        self, models: Sequence[str], backend: str = "auto", device: str | None = None, others: bool = False
    ) -> None:
        """others: whether models other than `models` may be chosen, by directory or id."""
        self._models, self._others = tuple(models), others
        self._backend, self._device = backend, device
        self._open: OrderedDict[tuple[str, str], Recognizer] = OrderedDict()
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "ms-ocr-read")  # Gradio calls from any thread

    def get(self, model: str, precision: str) -> Recognizer:
        """Raises ConfigurationError for a model that is not offered, and as `Recognizer.from_pretrained` does."""
        if model not in self._models and not (self._others and model):
            raise ConfigurationError(f"{model!r}: not one of the models of this page; choose one of them")
        with self._lock:
            recognizer = self._open.pop((model, precision), None)
            if recognizer is None:
                opening = self._thread.submit(
                    Recognizer.from_pretrained, model, self._backend, precision, device=self._device, trim="auto"
                )
                recognizer = opening.result().computed_in(self._thread)
            self._open[model, precision] = recognizer
            while len(self._open) > _KEPT_OPEN:
                self._open.popitem(last=False)
            return recognizer


def read_line(recognizer: Recognizer, picture: Path | bytes, n_best: int, limits: Limits) -> ReadPicture:
    """Read the image of one line. Raises ImageError, which does not reveal the path."""
    rgb = _loaded(picture, limits)
    line = recognizer.read(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), n_best)
    height, width = rgb.shape[:2]
    outline = ((0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height)))
    placed = PageLine(line.text, line.score, _placed(line, width, height), outline)
    return ReadPicture(rgb, True, (placed,), line.alternatives, advice(find_ink(rgb)) or "")


def _placed(line: Line, width: int, height: int) -> tuple[PageCharacter, ...]:
    """Adjacent boxes of the characters, each from the top to the bottom of the image."""
    edges = borders([(char.x0, char.x1) for char in line.chars], width)
    return tuple(
        PageCharacter(char.character, char.score, ((x0, 0), (x1, 0), (x1, height), (x0, height)))
        for char, x0, x1 in zip(line.chars, edges[:-1], edges[1:])
    )


def read_page(recognizer: Recognizer, picture: Path | bytes) -> ReadPicture:
    """Read the image of a page. Raises ImageError, BackendError."""
    rgb = _loaded(picture, PAGE_LIMITS)
    page = PageReader(recognizer, _detector()).read(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return ReadPicture(rgb, False, page.lines)


@functools.cache
def _detector() -> Detector:
    """The line detector, which takes a while to open."""
    return open_detector(RAPIDOCR)


def reads_pages() -> bool:
    """Whether the packages of the extra `page` are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("rapidocr", "onnxruntime"))


def _loaded(picture: Path | bytes, limits: Limits) -> np.ndarray:
    if isinstance(picture, bytes):
        return load_image(picture, limits=limits)
    try:
        check_bytes(os.path.getsize(picture), picture.name, limits.max_bytes)
        encoded = picture.read_bytes()  # so that messages do not reveal its place on the server
    except OSError as error:
        raise ImageError(f"{picture.name}: {error.strerror}; drop it again") from None
    return load_image(encoded, limits=limits)


def drawn_line(data_url: str, limits: Limits) -> bytes:
    """The PNG of a drawing, cropped to the ink.

    Args:
        data_url: From an HTML canvas, "data:image/png;base64,...".

    Raises:
        ImageError: It is not such a URL, or empty.
    """
    if not data_url.startswith(_DATA_URL):
        raise ImageError("the drawing is not a PNG; draw it again")
    check_bytes(len(data_url) * 3 // 4, "the drawing", limits.max_bytes)
    try:
        rgb = load_image(base64.b64decode(data_url.removeprefix(_DATA_URL), validate=True), limits=limits)
    except binascii.Error:
        raise ImageError("the drawing is not a PNG; draw it again") from None
    ink = find_ink(rgb)
    if ink is None:
        raise ImageError("nothing is drawn; draw a line of text first")
    picture, _ = trimmed(rgb, ink)
    return encode_line(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
