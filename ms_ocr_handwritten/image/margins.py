"""Locating the ink of an image: margins to trim, several lines above each other, images full of ink.

The network was trained on lines that fill most of their height. A line with wide margins is scaled down with them, and
loses characters. `trimmed` crops margins if that is safe: not if the line already fills most of the image, and not
around a single stroke such as 一 or -, which cropping would turn into a blot.
"""

from dataclasses import dataclass

import cv2
import numpy as np

WORKING_PIXELS = 100_000  # images are shrunk to this size to find their ink
LEAST_CONTRAST = 16  # grey levels (of 255) between ink and paper; an image with less is empty
INK_CONTRAST = 0.3  # share of the greatest contrast; anything fainter is paper
SPECK = 3  # minimum size of ink in working pixels
STROKES = 4  # minimum height of a line in stroke widths; a dash has less
FULL = 0.6  # share of the image's height taken by ink above which the image is not cropped
WIDE = 0.5  # share of the image's height taken by ink below which margins are wide
PADDING = 0.15  # margin kept around the ink, as a share of its height
LONG = 3  # minimum width of several lines, in heights of the tallest
BAND = 0.4  # minimum height of one line among several, as a share of the tallest


@dataclass(frozen=True)
class Ink:
    """The ink of an image, in px of the image."""

    left: int
    top: int
    right: int
    bottom: int
    stroke: float  # stroke width
    bands: tuple[int, ...]  # heights of bands of ink separated by paper, top to bottom
    picture_height: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def is_line(self) -> bool:
        """Whether it is more than dots and dashes, such as 二 and =."""
        return max(self.bands) >= STROKES * self.stroke

    @property
    def share(self) -> float:
        """The share of the image's height that it takes, in (0, 1]."""
        return self.height / self.picture_height

    @property
    def lines(self) -> int:
        """Number of lines of writing above each other."""
        if self.width < LONG * max(self.bands):
            return 1  # a character such as 多 or 三
        least = max(BAND * max(self.bands), STROKES * self.stroke)
        return max(1, sum(height >= least for height in self.bands))


def thumbnail(rgb: np.ndarray) -> np.ndarray:
    """An RGB uint8 (H, W, 3) image in grey, uint8 (h, w), shrunk to at most WORKING_PIXELS."""
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = (WORKING_PIXELS / (height * width)) ** 0.5
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA) if scale < 1 else grey


def find_ink(rgb: np.ndarray) -> Ink | None:
    """The ink of an RGB uint8 (H, W, 3) image, dark on light or light on dark; None if there is none."""
    height, width = rgb.shape[:2]
    grey = thumbnail(rgb)
    mask = ink_mask(grey)
    count, labels, found, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    kept = [index for index in range(1, count) if found[index, cv2.CC_STAT_AREA] >= SPECK]
    if not kept:
        return None
    rows = np.isin(labels, kept).any(axis=1) if len(kept) < count - 1 else mask.any(axis=1)
    boxes = found[kept]
    left, top = boxes[:, :2].min(0)
    right, bottom = (boxes[:, :2] + boxes[:, 2:4]).max(0)
    x, y = width / grey.shape[1], height / grey.shape[0]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], rows, [0]])))
    thickness = 2 * cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    stroke = float(np.percentile(thickness[mask > 0], 75))
    return Ink(
        int(left * x),
        int(top * y),
        min(width, int(np.ceil(right * x))),
        min(height, int(np.ceil(bottom * y))),
        stroke * y,
        tuple(round(float(end - start) * y) for start, end in zip(edges[::2], edges[1::2])),
        height,
    )


def ink_mask(grey: np.ndarray) -> np.ndarray:
    """Ink mask of a grey uint8 (H, W) image: uint8 (H, W), 1 where it stands out from the paper around it."""
    if np.median(grey) < grey.mean():  # the majority is paper
        grey = 255 - grey
    reach = 2 * (min(grey.shape) // 4) + 1
    paper = cv2.blur(cv2.dilate(grey, np.ones((reach, reach), np.uint8)), (reach, reach))
    contrast = cv2.subtract(paper, grey)
    greatest = float(cv2.blur(contrast, (2, 2)).max())
    if greatest < LEAST_CONTRAST:
        return np.zeros_like(grey)
    usual = float(np.median(contrast))  # of uneven paper
    return (contrast > max(INK_CONTRAST * greatest, usual + LEAST_CONTRAST / 2)).astype(np.uint8)


def inked_columns(grey: np.ndarray) -> float:
    """The share of columns of a grey uint8 (H, W) image that hold ink, in [0, 1]."""
    return float(ink_mask(grey).any(axis=0).mean())


def advice(ink: Ink | None) -> str | None:
    """What makes an image unsuitable as one line of text, if anything, for a warning."""
    if ink is None or not ink.is_line:
        return None
    if ink.lines > 1:
        return (
            f"holds about {ink.lines} lines of writing above each other; crop it to single lines, or read it with "
            "`ms-ocr page`"
        )
    if ink.share < WIDE:
        return f"has wide margins (ink takes {ink.share:.0%} of its height); crop it closer, or set trim='auto'"
    return None


def trimmed(rgb: np.ndarray, ink: Ink | None) -> tuple[np.ndarray, int]:
    """The image without wide margins, and the number of px cropped at its left."""
    if ink is None or ink.share > FULL or ink.lines > 1 or not ink.is_line:
        return rgb, 0
    height, width = rgb.shape[:2]
    padding = max(1, round(PADDING * ink.height))
    if ink.width < 2 * ink.height:  # one or two characters: the crop must not be taller than wide
        padding = max(padding, (ink.width - ink.height) // 2)
    left = max(0, ink.left - padding)
    return (
        rgb[max(0, ink.top - padding) : min(height, ink.bottom + padding), left : min(width, ink.right + padding)],
        left,
    )
