"""From the RGB of a line to the canvas that the network reads.

    source -> load_image -> RGB (H, W, 3) -> line_canvas -> grey (32, W') -> chunk_array -> (N, 32, 300)

Scaling and padding are those of ModelScope's `OCRRecognitionPreprocessor`, the grey those of its `ConvNextViT`, so
that the values equal upstream's up to 25:1. Longer lines get more chunks; upstream squeezes them.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import ImageError
from ..geometry import (
    CHUNK_STEP,
    CHUNK_WIDTH,
    GREY_WEIGHTS,
    LINE_HEIGHT,
    MAX_CHUNKS,
    canvas_width,
    inked_chunks,
    line_chunks,
    scaled_width,
)
from .limits import size_text

_SHARES = [np.arange(256, dtype=np.float32) / 255.0 * weight for weight in GREY_WEIGHTS]  # of each level of R, G, B


@dataclass(frozen=True, eq=False)
class LineCanvas:
    """A line scaled to 32 px height at the left of a black canvas, without the chunks that hold padding alone.

    grey: float32 (32, 252 n + 48) in [0, 1] for n inked chunks, 0 from column `width` on
    width: px of the canvas that the line covers
    source_width, source_height: px of the part of the upright image that the line came from
    source_left: px of that image left of this part
    thumbnail: grey uint8 (h, w) of a picture so high that faint ink may be lost when it is scaled to the canvas
    chunks: of the whole canvas, 3 up to 25:1
    """

    grey: np.ndarray
    width: int
    source_width: int
    source_height: int
    chunks: int
    source_left: int = 0
    thumbnail: np.ndarray | None = None

    @property
    def inked(self) -> int:
        """The number of chunks that are not padding alone, at most `chunks`."""
        return (self.grey.shape[1] - CHUNK_WIDTH) // CHUNK_STEP + 1

    def chunk_array(self) -> np.ndarray:
        """The inked chunks, 300 px every 252 px: contiguous float32 (n, 32, 300), n <= chunks."""
        return _chunked(self.grey)

    def source_x(self, canvas_x: float) -> float:
        """The px of the source image at `canvas_x` px of the canvas, held within the part that the line came from."""
        return self.source_left + min(max(canvas_x * self.source_width / self.width, 0.0), float(self.source_width))


def line_canvas(rgb: np.ndarray) -> LineCanvas:
    """The canvas of an RGB uint8 (H, W, 3) line. Raises ImageError if it is far too tall or too long to be one.

    >>> canvas = line_canvas(np.full((64, 1000, 3), 255, np.uint8))
    >>> canvas.width, canvas.inked, canvas.chunk_array().shape
    (500, 2, (2, 32, 300))
    """
    scaled, chunks = _scaled_line(rgb)
    height, width = rgb.shape[:2]
    red, green, blue = map(cv2.LUT, cv2.split(scaled), _SHARES)
    inked = min(inked_chunks(scaled.shape[1]), chunks)
    grey = np.zeros((LINE_HEIGHT, canvas_width(inked)), np.float32)
    # Upstream's weights, in upstream's order: float sums depend on it.
    grey[:, : scaled.shape[1]] = red + green + blue
    return LineCanvas(grey, scaled.shape[1], width, height, chunks)


def rgb_chunks(rgb: np.ndarray) -> np.ndarray:
    """All chunks of an RGB uint8 (H, W, 3) line, padding included: float32 (N, 3, 32, 300) in [0, 1].

    N is 3 up to 25:1, and the values are then those of upstream's preprocessor. Raises ImageError as `line_canvas`.

    >>> rgb_chunks(np.full((64, 1000, 3), 255, np.uint8)).shape
    (3, 3, 32, 300)
    """
    scaled, chunks = _scaled_line(rgb)
    canvas = np.zeros((3, LINE_HEIGHT, canvas_width(chunks)), np.float32)
    canvas[:, :, : scaled.shape[1]] = np.moveaxis(scaled, 2, 0)
    return _chunked(canvas / 255.0)


def _scaled_line(rgb: np.ndarray) -> tuple[np.ndarray, int]:
    """The line at 32 px height, uint8 (32, width, 3), and the chunks of its whole canvas."""
    height, width = rgb.shape[:2]
    line_width = scaled_width(width, height)
    chunks = line_chunks(line_width)
    if line_width == 0:
        raise ImageError(
            f"an image of {size_text(width, height)} is 0 px wide at a height of {LINE_HEIGHT} px; "
            "a line of text runs from left to right: rotate the image, or crop it to one line"
        )
    if chunks > MAX_CHUNKS:
        longest = canvas_width(MAX_CHUNKS)
        raise ImageError(
            f"an image of {size_text(width, height)} is {line_width} px wide at a height of {LINE_HEIGHT} px, over the "
            f"limit of {longest} px (aspect ratio {longest / LINE_HEIGHT}:1); cut the line into shorter ones"
        )
    return cv2.resize(rgb, (line_width, LINE_HEIGHT)), chunks


def _chunked(canvas: np.ndarray) -> np.ndarray:
    """(..., 32, 252 n + 48) -> contiguous (n, ..., 32, 300)."""
    starts = range(0, canvas.shape[-1] - CHUNK_WIDTH + 1, CHUNK_STEP)
    return np.stack([canvas[..., start : start + CHUNK_WIDTH] for start in starts])
