"""Views of a line for test-time augmentation: the same writing, framed closer or wider, scaled narrower or broader.

A network reads lines best that fill the canvas like those of its training. If it is uncertain about a line, the
readings of a few views are more reliable than a single one.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..geometry import LINE_HEIGHT, Layout, scaled_width
from .canvas import LineCanvas, line_canvas


@dataclass(frozen=True)
class View:
    """A different framing of a line."""

    margin: float = 0.0  # line heights added above and below by repeating the edge; negative values crop
    stretch: float = 1.0  # factor of the width, in addition to the scaling to 32 px

    def scaled(self, rgb: np.ndarray, layout: Layout) -> np.ndarray:
        """An RGB uint8 (H, W, 3) line in this framing, at 32 px height: uint8 (32, w, 3)."""
        height, width = rgb.shape[:2]
        margin = round(height * self.margin)
        if margin < 0:
            framed = rgb[-margin : height + margin]
        else:
            framed = cv2.copyMakeBorder(rgb, margin, margin, 0, 0, cv2.BORDER_REPLICATE)
        wide = round(scaled_width(width, len(framed)) * self.stretch)
        return cv2.resize(framed, (min(max(wide, 1), layout.longest), LINE_HEIGHT))


VIEWS = View(margin=-0.06), View(margin=0.06), View(stretch=0.9), View(stretch=1.1)  # chosen on held-out lines


def view_canvas(canvas: LineCanvas, scaled: np.ndarray) -> LineCanvas:
    """The canvas of one of `canvas.views`, with positions in the same source image."""
    grey = line_canvas(scaled, canvas.layout)
    return replace(canvas, grey=grey.grey, width=grey.width, chunks=grey.chunks, views=())
