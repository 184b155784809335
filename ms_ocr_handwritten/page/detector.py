"""Line detection on a page: polygons from RapidOCR's detector or any callable."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from ..errors import ConfigurationError, ImageError
from .rapidocr import open_rapidocr

# uint8 (H, W, 3), BGR as in OpenCV -> for each line its polygon, (n, 2) or flat (2 n,), in px of that page.
Detector = Callable[[np.ndarray], Iterable]

RAPIDOCR = "rapidocr"
LONGEST_SIDE = 1600  # px of the page as seen by the network; see docs/page.md for the effect of other values
UNCLIP = 1.2  # how far a box extends beyond the core marked by the network; upstream's 1.6 is for print

_WEIGHTS = "PP-OCRv6_det_small.onnx"  # in rapidocr's folder models/
_MULTIPLE = 32  # px; the sides of the network's input are multiples of this


def open_detector(detector: "str | Detector") -> Detector:
    """`"rapidocr"`, or a callable, returned unchanged. Raises BackendError or ConfigurationError."""
    if callable(detector):
        return detector
    if detector == RAPIDOCR:
        return RapidOcrDetector()
    raise ConfigurationError(
        f"detector is {detector!r}; give {RAPIDOCR!r}, or a function from a page (BGR array) to polygons; models of "
        "ModelScope open with ms_ocr_handwritten.plugin.detector.open_detector(id or directory)"
    )


class RapidOcrDetector:
    """PP-OCRv6 det small, with the weights contained in the package rapidocr; nothing is ever downloaded."""

    def __init__(self, longest_side: int = LONGEST_SIDE, unclip: float = UNCLIP) -> None:
        """Raises BackendError if rapidocr, onnxruntime or the weights are missing or do not work."""
        self.longest_side = longest_side
        parameters = {
            "Global.use_cls": False,
            "Global.use_rec": False,
            # The page is resized only here, and only downwards: these limits make rapidocr keep its size.
            "Global.max_side_len": 1_000_000,
            "Global.min_side_len": 1,
            "Det.limit_side_len": 1,
            "Det.unclip_ratio": unclip,
        }
        blank = np.full((_MULTIPLE, _MULTIPLE, 3), 255, np.uint8)
        self._engine = open_rapidocr("finding the lines of a page", "page", {"Det": _WEIGHTS}, parameters, blank, {})

    def __call__(self, page: np.ndarray) -> list[np.ndarray]:
        """The boxes of lines or parts of lines, float64 (4, 2) each."""
        height, width = page.shape[:2]
        scale = min(1.0, self.longest_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        shrunk = page if size == (width, height) else cv2.resize(page, size, interpolation=cv2.INTER_AREA)
        # Less than half a multiple would be rounded to nothing; such a thin strip is placed on a background.
        if min(size) < _MULTIPLE:
            right, below = (max(0, _MULTIPLE - side) for side in size)
            shrunk = cv2.copyMakeBorder(shrunk, 0, below, 0, right, cv2.BORDER_REPLICATE)
        boxes = getattr(self._engine(shrunk), "boxes", None)  # an empty result is of a class without boxes
        if boxes is None:
            return []
        return list(np.clip(np.asarray(boxes, np.float64) * (width / size[0], height / size[1]), 0, (width, height)))


def checked_polygons(found: Iterable) -> list[np.ndarray]:
    """The polygons of any detector as float64 (n, 2). Raises ImageError naming an invalid one."""
    polygons = []
    for index, one in enumerate(found):
        try:
            polygon = np.asarray(one, np.float64).reshape(-1, 2)
        except (TypeError, ValueError) as error:
            raise ImageError(f"polygon {index}: no points ({error}); give (x, y) pairs in px of the page") from None
        if len(polygon) < 3 or not np.isfinite(polygon).all():
            raise ImageError(f"polygon {index}: three or more finite points expected, {len(polygon)} found")
        polygons.append(polygon)
    return polygons
