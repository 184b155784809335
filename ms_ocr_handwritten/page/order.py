"""The reading order of the lines of a page.

A line precedes another by one of two rules, after Breuel ("High performance document layout analysis", 2003): it is
above it and their x ranges overlap; or it is left of it in an adjacent column, and no line vertically between the two
overlaps both. So columns are read one after the other, after a heading that spans them.
"""

from collections.abc import Sequence

import numpy as np

HORIZONTAL, VERTICAL = "horizontal", "vertical"

_OVERLAP = 0.2  # share of the narrower of two lines below which their ranges merely touch


def reading_order(polygons: Sequence[np.ndarray], writing: str = HORIZONTAL) -> list[int]:
    """Indices of polygons, each (n, 2), in reading order.

    writing: "horizontal", left to right in lines from top to bottom; or "vertical", top to bottom in columns from
        right to left, as in traditional Chinese writing.
    """
    if not len(polygons):
        return []
    boxes = np.array([[*polygon.min(axis=0), *polygon.max(axis=0)] for polygon in polygons])
    x0, y0, x1, y1 = boxes.T
    if writing == VERTICAL:  # rotated left by 90 degrees, columns from the right become lines from the top
        x0, y0, x1, y1 = y0, -x1, y1, -x0
    count, middle = len(boxes), (y0 + y1) / 2
    overlap = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    narrower = np.minimum((x1 - x0)[:, None], x1 - x0)
    overlaps = overlap > _OVERLAP * narrower
    before = overlaps & (middle[:, None] < middle)
    left = ~overlaps & (((x0 + x1) / 2)[:, None] < (x0 + x1) / 2)
    low, high = np.minimum(middle[:, None], middle), np.maximum(middle[:, None], middle)
    for one in range(count):  # rows: lines between or in a column; columns: the line it is compared with
        above_or_below = overlaps[:, one, None]
        parted = (above_or_below & overlaps & (middle[:, None] > low[one]) & (middle[:, None] < high[one])).any(axis=0)
        top = np.where(above_or_below & ~overlaps, y0[:, None], np.inf).min(axis=0)
        bottom = np.where(overlaps & ~above_or_below, y1[:, None], -np.inf).max(axis=0)
        before[one] |= left[one] & ~parted & (top < bottom)
    return _sorted(before, middle, x0)


def _sorted(before: np.ndarray, y: np.ndarray, x: np.ndarray) -> list[int]:
    """A topological order of (n, n) `before`; in case of a choice or a cycle, the topmost line comes first.

    Depth-first, as in Breuel: what must precede a line comes directly before it, so that columns stay together.
    """
    order: list[int] = []
    seen = np.zeros(len(y), bool)
    ranked = np.lexsort((x, y))
    for start in ranked:
        if seen[start]:
            continue
        seen[start] = True
        stack = [(start, iter(ranked[before[ranked, start]]))]
        while stack:
            line, precursors = stack[-1]
            other = next((one for one in precursors if not seen[one]), None)
            if other is None:
                order.append(int(line))
                stack.pop()
            else:
                seen[other] = True
                stack.append((other, iter(ranked[before[ranked, other]])))
    return order
