"""From the RGB image of a line to the canvas that the network reads.

    source -> load_image -> RGB (H, W, 3) -> line_canvas -> grey (32, W') -> piece_array -> (N, 32, piece)

Scaling and padding are those of ModelScope's `OCRRecognitionPreprocessor`, the grey conversion that of `ConvNextViT`,
so the values equal upstream's on the official canvas. Longer lines get a wider one; upstream squeezes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import ImageError
from ..geometry import CHUNKED, GREY_WEIGHTS, LINE_HEIGHT, Layout, scaled_width
from .limits import size_text

_SHARES = [np.arange(256, dtype=np.float32) / 255.0 * weight for weight in GREY_WEIGHTS]  # of each level of R, G, B


@dataclass(frozen=True, eq=False)
class LineCanvas:
    """A line scaled to 32 px height at the left of a black canvas, without the pieces that hold only padding.

    grey: float32 (32, W) in [0, 1], 0 from column `width` on; W is 252 n + 48 for n inked chunks
    width: px of the canvas covered by the line
    source_width, source_height: size in px of the region of the upright image that the line comes from
    source_left: left edge in px of this region in that image
    thumbnail: grey uint8 (h, w), for an image so tall that faint ink may be lost when it is scaled to the canvas
    chunks: number of pieces of the whole canvas; for ConvNextViT 3 up to an aspect ratio of 25:1
    layout: of the network that the line is for
    views: the same line in other framings, uint8 (32, w, 3), which are read if this one gets a low score
    """

    grey: np.ndarray
    width: int
    source_width: int
    source_height: int
    chunks: int
    source_left: int = 0
    thumbnail: np.ndarray | None = None
    layout: Layout = CHUNKED
    views: tuple[np.ndarray, ...] = ()

    @property
    def inked(self) -> int:
        """Number of pieces that hold more than padding, at most `chunks`."""
        return len(self.layout.cuts(self.grey.shape[1]))

    @property
    def piece_width(self) -> int:
        """Width of each piece in px."""
        cut = self.layout.cuts(self.grey.shape[1])[0]
        return cut.stop - cut.start

    @property
    def computed_width(self) -> int:
        """Total width in px of the pieces that a network computes."""
        return self.inked * self.piece_width

    def piece_array(self) -> np.ndarray:
        """The inked pieces: contiguous float32 (n, 32, piece_width), n <= chunks."""
        return piece_arrays([self])

    def source_x(self, canvas_x: float) -> float:
        """The x in px of the source image for `canvas_x` px of the canvas, clamped to the region of the line."""
        return self.source_left + min(max(canvas_x * self.source_width / self.width, 0.0), float(self.source_width))


def line_canvas(rgb: np.ndarray, layout: Layout = CHUNKED) -> LineCanvas:
    """The canvas of an RGB uint8 (H, W, 3) line. Raises ImageError if it is far too tall or too long for a line.

    >>> canvas = line_canvas(np.full((64, 1000, 3), 255, np.uint8))
    >>> canvas.width, canvas.inked, canvas.piece_array().shape
    (500, 2, (2, 32, 300))
    """
    scaled = _scaled_line(rgb, layout)
    height, width = rgb.shape[:2]
    red, green, blue = map(cv2.LUT, cv2.split(scaled), _SHARES)
    grey = np.zeros((LINE_HEIGHT, layout.inked_width(scaled.shape[1])), np.float32)
    # Upstream's weights in upstream's order, on which float sums depend.
    grey[:, : scaled.shape[1]] = red + green + blue
    return LineCanvas(grey, scaled.shape[1], width, height, layout.pieces(scaled.shape[1]), layout=layout)


def piece_arrays(lines: Sequence[LineCanvas]) -> np.ndarray:
    """The inked pieces of lines with the same piece width, line by line, copied once: float32 (N, 32, W).

    >>> piece_arrays([line_canvas(np.zeros((64, width, 3), np.uint8)) for width in (1000, 400)]).shape
    (3, 32, 300)
    """
    return np.stack([line.grey[:, cut] for line in lines for cut in line.layout.cuts(line.grey.shape[1])])


def rgb_pieces(rgb: np.ndarray, layout: Layout = CHUNKED) -> np.ndarray:
    """All pieces of an RGB uint8 (H, W, 3) line, including padding: float32 (N, 3, 32, piece) in [0, 1].

    On the official canvas the values are those of upstream's preprocessor. Raises ImageError as `line_canvas` does.

    >>> rgb_pieces(np.full((64, 1000, 3), 255, np.uint8)).shape
    (3, 3, 32, 300)
    """
    scaled = _scaled_line(rgb, layout)
    canvas = np.zeros((3, LINE_HEIGHT, layout.canvas_width(scaled.shape[1])), np.float32)
    canvas[:, :, : scaled.shape[1]] = np.moveaxis(scaled, 2, 0)
    canvas /= 255.0
    return np.stack([canvas[..., cut] for cut in layout.cuts(canvas.shape[-1])])


def _scaled_line(rgb: np.ndarray, layout: Layout) -> np.ndarray:
    """The line scaled to 32 px height, uint8 (32, width, 3)."""
    height, width = rgb.shape[:2]
    line_width = scaled_width(width, height)
    if line_width == 0:
        raise ImageError(
            f"an image of {size_text(width, height)} is 0 px wide at a height of {LINE_HEIGHT} px; "
            "a line of text runs from left to right: rotate the image, or crop it to one line"
        )
    longest = layout.longest
    if line_width > longest:
        raise ImageError(
            f"an image of {size_text(width, height)} is {line_width} px wide at a height of {LINE_HEIGHT} px, over the "
            f"limit of {longest} px (aspect ratio {longest / LINE_HEIGHT}:1); cut the line into shorter ones"
        )
    return cv2.resize(rgb, (line_width, LINE_HEIGHT))
