"""Lines that are cut out of pictures of pages: what the readers of annotations share."""

import math
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags

from ..errors import DataError, ImageError
from ..image import load_image
from ..image.file import open_image
from ..image.limits import PAGE_LIMITS
from ..image.straighten import Points, cut_line


class PageImage:
    """The picture of a page, decoded at the first cut and let go of with the last of its lines."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._bgr: np.ndarray | None = None

    def cutter(self, polygon: Points, baseline: Points | None = None) -> Callable[[], np.ndarray]:
        """A function that cuts the line out: BGR uint8 (h, w, 3). It raises ImageError as `cut_line` does."""
        return partial(self._cut, polygon, baseline)

    def _cut(self, polygon: Points, baseline: Points | None) -> np.ndarray:
        return cut_line(self.bgr(), polygon, baseline)

    def bgr(self) -> np.ndarray:
        """uint8 (H, W, 3), upright."""
        with self._lock:
            if self._bgr is None:
                self._bgr = cv2.cvtColor(load_image(self._source, limits=PAGE_LIMITS), cv2.COLOR_RGB2BGR)
            return self._bgr


def upright_size(file: Path) -> tuple[int, int]:
    """Width and height in px of the picture, from its header. Raises ImageError."""
    try:
        with open_image(file.read_bytes(), str(file), PAGE_LIMITS) as image:
            width, height = image.size
            lies = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    except OSError as error:
        raise ImageError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error
    return (height, width) if lies else (width, height)


def find_page(name: str, folders: Iterable[Path | None], where: str) -> Path:
    """The file of a page whose annotations call it `name`: that path, or its last part, in one of the folders.

    Raises DataError where none of them holds it.
    """
    tail = name.replace("\\", "/").rsplit("/", 1)[-1]
    looked = [folder for folder in folders if folder is not None]
    for folder in looked:
        for candidate in (folder / name, folder / tail):
            if tail and candidate.is_file():
                return candidate
    raise DataError(
        f"{where}: the page {name!r} is not in {' or '.join(map(str, looked))}; put it there, or give the image root"
    )


def rectangle(x: float, y: float, width: float, height: float, degrees: float = 0.0) -> list[tuple[float, float]]:
    """Corners, clockwise from (x, y), of a rectangle turned about that corner; on the page clockwise is positive."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    return [(x + right * cosine - down * sine, y + right * sine + down * cosine) for right, down in corners]
