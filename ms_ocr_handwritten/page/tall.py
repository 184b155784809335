"""Vertical lines, laid out so that a recogniser of horizontal lines can read them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..image.straighten import LinePicture

_SHORTEST, _LONGEST = 0.5, 1.6  # height of a character, in widths of the column
_SQUARE = 1.0  # weight of a character's squareness relative to the ink that a cut crosses


@dataclass(frozen=True, eq=False)
class TallPicture:
    """An image of the line in which x runs along the writing.

    pixels: uint8 (h, w, 3), to be read
    source: the line as it is on the page
    x, y: px along x of `pixels` and the matching px along y of `source`: knots of a continuous function, x ascending
    """

    pixels: np.ndarray
    source: LinePicture
    x: np.ndarray
    y: np.ndarray

    def span(self, x0: float, x1: float) -> np.ndarray:
        """The part of the line from `x0` to `x1` px of the image: (4, 2) px of the page, clockwise."""
        upper, lower = sorted(np.interp([x0, x1], self.x, self.y))
        width = self.source.pixels.shape[1]
        return self.source.on_page([(0, upper), (width, upper), (width, lower), (0, lower)])


def laid_out(picture: LinePicture) -> Iterator[TallPicture]:
    """The possible ways of writing: upright characters below each other, or a line rotated left or right."""
    height = picture.pixels.shape[0]
    yield _stacked(picture)
    for turns, ends in ((1, (0, height)), (-1, (height, 0))):  # counter-clockwise: the top is at the left
        turned = np.ascontiguousarray(np.rot90(picture.pixels, turns))
        yield TallPicture(turned, picture, np.array([0, height]), np.array(ends))


def _stacked(picture: LinePicture) -> TallPicture:
    """Cut between the characters, which are then placed side by side."""
    pixels = picture.pixels
    width = pixels.shape[1]
    paper = np.median(pixels.reshape(-1, pixels.shape[2]), axis=0)
    cuts = _cuts(np.abs(pixels - paper).mean(axis=(1, 2)), width)
    cells = [pixels[top:bottom] for top, bottom in zip(cuts[:-1], cuts[1:])]
    row = np.empty((max(len(cell) for cell in cells), width * len(cells), pixels.shape[2]), np.uint8)
    row[:] = np.rint(paper)
    for index, cell in enumerate(cells):
        top = (len(row) - len(cell)) // 2
        row[top : top + len(cell), index * width : (index + 1) * width] = cell
    return TallPicture(row, picture, np.arange(len(cuts)) * width, np.array(cuts))


def _cuts(ink: np.ndarray, width: int) -> list[int]:
    """Rows 0 = r0 < r1 < ... < rn = height that cut little ink and give pieces about as high as wide.

    Args:
        ink: (height,), the mean darkness of each row.
        width: of the column in px.
    """
    height = len(ink)
    shortest, longest = max(1, int(_SHORTEST * width)), max(2, int(_LONGEST * width))
    level = max(float(ink.mean()), 1e-9)
    cost = np.full(height + 1, np.inf)  # of the best cuts whose last piece ends at that row
    before = np.zeros(height + 1, int)
    cost[0] = 0.0
    for end in range(1, height + 1):
        # The last piece may have any height up to the maximum, as the column must end somewhere.
        starts = np.arange(max(0, end - longest), end if end == height else max(0, end - shortest) + 1)
        if end < shortest and end != height:
            continue
        shape = _SQUARE * ((end - starts) / width - 1) ** 2
        through = 0.0 if end == height else ink[end] / level
        totals = cost[starts] + shape + through
        best = int(totals.argmin())
        cost[end], before[end] = totals[best], starts[best]
    cuts = [height]
    while cuts[-1] > 0:
        cuts.append(int(before[cuts[-1]]))
    return cuts[::-1]
