"""Where the lines of a page are: polygons, by RapidOCR's detector or by any callable."""

from collections.abc import Callable, Iterable

import cv2
import numpy as np

from ..errors import ConfigurationError, ImageError
from .rapidocr import open_rapidocr

# uint8 (H, W, 3), BGR as OpenCV has it -> for each line its polygon, (n, 2) or flat (2 n,), in px of that page.
Detector = Callable[[np.ndarray], Iterable]

RAPIDOCR = "rapidocr"
LONGEST_SIDE = 1600  # px of the page that the network sees; see docs/page.md for what others find
UNCLIP = 1.2  # how far a box reaches beyond the core that the network marks; upstream's 1.6 is for print

_WEIGHTS = "PP-OCRv6_det_small.onnx"  # in rapidocr's folder models/
_MULTIPLE = 32  # px; the sides of the network's input


def open_detector(detector: "str | Detector") -> Detector:
    """`"rapidocr"`, or a callable as it is. Raises BackendError or ConfigurationError."""
    if callable(detector):
        return detector
    if detector == RAPIDOCR:
        return RapidOcrDetector()
    raise ConfigurationError(
        f"detector is {detector!r}; give {RAPIDOCR!r}, or a function from a page (BGR array) to polygons; models of "
        "ModelScope open with ms_ocr_handwritten.plugin.detector.open_detector(id or directory)"
    )


class RapidOcrDetector:
    """PP-OCRv6 det small, with the weights that the package rapidocr brings; nothing is ever fetched."""

    def __init__(self, longest_side: int = LONGEST_SIDE, unclip: float = UNCLIP) -> None:
        """Raises BackendError where rapidocr, onnxruntime or the weights are missing, or do not work."""
        self.longest_side = longest_side
        parameters = {
            "Global.use_cls": False,
            "Global.use_rec": False,
            # The page is shrunk here alone, never enlarged: these are the sides that leave it as it comes.
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
        # Narrower than half a cell would be nothing after rounding; a strip that thin is laid on paper.
        if min(size) < _MULTIPLE:
            right, below = (max(0, _MULTIPLE - side) for side in size)
            shrunk = cv2.copyMakeBorder(shrunk, 0, below, 0, right, cv2.BORDER_REPLICATE)
        boxes = getattr(self._engine(shrunk), "boxes", None)  # an empty result of another class has none
        if boxes is None:
            return []
        return list(np.clip(np.asarray(boxes, np.float64) * (width / size[0], height / size[1]), 0, (width, height)))


def checked_polygons(found: Iterable) -> list[np.ndarray]:
    """Polygons as any detector gives them, as float64 (n, 2). Raises ImageError naming the one that is none."""
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
