"""Views of a line for test-time augmentation: the same writing, framed closer or wider, narrower or broader.

A network reads best what fills its canvas as its training's lines do. Where it is in doubt about a line, what it finds
in a few views of it tells more than one reading.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..geometry import LINE_HEIGHT, Layout, scaled_width
from .canvas import LineCanvas, line_canvas


@dataclass(frozen=True)
class View:
    """How a line is framed anew."""

    margin: float = 0.0  # heights added above and below, of the colours at the edges; less than 0: cut off
    stretch: float = 1.0  # of the width, beside the height's

    def scaled(self, rgb: np.ndarray, layout: Layout) -> np.ndarray:
        """An RGB uint8 (H, W, 3) line so framed, at 32 px height: uint8 (32, w, 3)."""
        height, width = rgb.shape[:2]
        margin = round(height * self.margin)
        if margin < 0:
            framed = rgb[-margin : height + margin]
        else:
            framed = cv2.copyMakeBorder(rgb, margin, margin, 0, 0, cv2.BORDER_REPLICATE)
        wide = round(scaled_width(width, len(framed)) * self.stretch)
        return cv2.resize(framed, (min(max(wide, 1), layout.longest), LINE_HEIGHT))


VIEWS = View(margin=-0.06), View(margin=0.06), View(stretch=0.9), View(stretch=1.1)  # chosen by held-out lines


def view_canvas(canvas: LineCanvas, scaled: np.ndarray) -> LineCanvas:
    """The canvas of one of `canvas.views`; positions in it are those of the same source."""
    grey = line_canvas(scaled, canvas.layout)
    return replace(canvas, grey=grey.grey, width=grey.width, chunks=grey.chunks, views=())
