"""Cutting lines out of page images: shared by the readers of annotations."""

import math
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from ..errors import DataError
from ..image import load_image
from ..image.limits import PAGE_LIMITS
from ..image.straighten import Points, cut_line


class PageImage:
    """The image of a page, decoded at the first cut and released with the last of its lines."""

    def __init__(self, source: Path | bytes) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._bgr: np.ndarray | None = None

    def cutter(self, polygon: Points, baseline: Points | None = None) -> Callable[[], np.ndarray]:
        """A function that cuts out the line: BGR uint8 (h, w, 3). It raises ImageError like `cut_line`."""
        return partial(self._cut, polygon, baseline)

    def _cut(self, polygon: Points, baseline: Points | None) -> np.ndarray:
        return cut_line(self.bgr(), polygon, baseline)

    def bgr(self) -> np.ndarray:
        """uint8 (H, W, 3), upright."""
        with self._lock:
            if self._bgr is None:
                self._bgr = cv2.cvtColor(load_image(self._source, limits=PAGE_LIMITS), cv2.COLOR_RGB2BGR)
            return self._bgr


def find_page(name: str, folders: Iterable[Path | None], where: str) -> Path:
    """The file of the page that its annotations call `name`: that path, or its last part, in one of the folders.

    Raises DataError if none of them contains it.
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
    """Corners, clockwise from (x, y), of a rectangle rotated about that corner; positive is clockwise on the page."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = ((0, 0), (width, 0), (width, height), (0, height))
    return [(x + right * cosine - down * sine, y + right * sine + down * cosine) for right, down in corners]
