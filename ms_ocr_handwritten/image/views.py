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

    def canvas(self, rgb: np.ndarray, layout: Layout) -> LineCanvas:
        """The canvas of an RGB uint8 (H, W, 3) line so framed; positions in it are those of `rgb`."""
        height, width = rgb.shape[:2]
        margin = round(height * self.margin)
        if margin < 0:
            framed = rgb[-margin : height + margin]
        else:
            framed = cv2.copyMakeBorder(rgb, margin, margin, 0, 0, cv2.BORDER_REPLICATE)
        wide = round(scaled_width(width, len(framed)) * self.stretch)
        scaled = cv2.resize(framed, (min(max(wide, 1), layout.longest), LINE_HEIGHT))
        return replace(line_canvas(scaled, layout), source_width=width, source_height=height)


VIEWS = View(margin=-0.06), View(margin=0.06), View(stretch=0.9), View(stretch=1.1)  # chosen by held-out lines
