"""Cutting a line out of a page: from its polygon, and baseline if there is one, to a straight strip of pixels.

    polygon (and baseline) -> rails, the upper and the lower edge of the strip on the page -> pixels between the rails

The rails follow the line: perspective and rotation are removed, a curved line becomes straight. Between the rails but
outside the polygon is the ink of neighbouring lines, which is painted over with the colour of the paper.
Coordinates are (x, y) in px of the page, y downwards, a pixel covering [x, x + 1) x [y, y + 1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np

from ..errors import ImageError

Points: TypeAlias = Sequence[tuple[float, float]] | np.ndarray  # (n, 2)

_MAX_SIDE = 32_766  # px of one side; OpenCV's remap uses 16-bit coordinates
_LEAST_ON_PAGE = 0.5  # share of a polygon's bounding box on the page; with less, they do not belong together
_CURVE_DEGREE = 3  # of the polynomial fitted to a line: slow bends, not ascenders and descenders
_LEAST_BEND = 0.1  # of the line's height; a flatter centre line is treated as straight
_MOST_SLOPE = 1.0  # of a bend; a steeper one is not a line of text
_STATION_STEP = 0.25  # line heights between two points of a curved rail
_SUBPIXELS = 16  # per px, the resolution of OpenCV's polygon filling (its shift of 4)
_PAPER_STEP = 4  # line heights that share one estimate of the paper's colour


@dataclass(frozen=True, eq=False)
class LinePicture:
    """A line cut out of its page, and the mapping back to the page.

    pixels: uint8 (h, w) or (h, w, 3), the channels of the page
    rails: float64 (2, K, 2), K >= 2 points (x, y) of the page along the upper and the lower edge of `pixels`, equally
        spaced from its left to its right edge
    """

    pixels: np.ndarray
    rails: np.ndarray

    def on_page(self, points: Points) -> np.ndarray:
        """Map points of the line image to the page: (n, 2) px of the image -> float64 (n, 2) px of the page."""
        points = np.asarray(points, np.float64).reshape(-1, 2)
        height, width = self.pixels.shape[:2]
        upper, lower = _along(self.rails, points[:, 0] / width)
        down = points[:, 1:] / height
        return upper * (1 - down) + lower * down

    def span(self, x0: float, x1: float) -> np.ndarray:
        """The part of the line from `x0` to `x1` px of the image: (4, 2) px of the page, clockwise."""
        height = self.pixels.shape[0]
        return self.on_page([(x0, 0), (x1, 0), (x1, height), (x0, height)])


def cut_line(image: np.ndarray, polygon: Points, baseline: Points | None = None) -> np.ndarray:
    """Cut out the line that `polygon` encloses.

    Args:
        image: uint8 (H, W) or (H, W, C), the upright page.
        polygon: three or more points around the line; four are treated as its corners.
        baseline: two or more points in the direction of writing, which the line then follows.

    Returns:
        uint8 (h, w) or (h, w, C), a new array with about as many pixels as the line has on the page.

    Raises:
        ImageError: polygon or baseline are invalid, or most of the polygon lies outside the page.
    """
    return cut_line_picture(image, polygon, baseline).pixels


def cut_line_picture(
    image: np.ndarray,
    polygon: Points,
    baseline: Points | None = None,
    *,
    margin: float = 0.0,
    neighbours: Sequence[Points] = (),
) -> LinePicture:
    """`cut_line`, with the mapping back to the page.

    Args:
        margin: extension of the cut beyond the polygon on all sides, in line heights: room for what a detector's
            tight box cuts off.
        neighbours: polygons (n, 2) of other lines, whose ink is painted over in the margin.
    """
    outline = _checked_outline(polygon, image.shape[1], image.shape[0])
    rectangle = _as_rectangle(outline) if baseline is None and not margin else None
    if rectangle is not None:
        x0, y0, x1, y1 = rectangle
        rails = np.array([[[x0, y0], [x1, y0]], [[x0, y1], [x1, y1]]], np.float64)
        return LinePicture(image[y0:y1, x0:x1].copy(), rails)
    corners = corners_of(outline) if baseline is None else None
    rails = corners[[[0, 1], [3, 2]]] if corners is not None else _curved_rails(outline, _checked_baseline(baseline))
    if margin:
        rails = _widened(rails, margin)
    return LinePicture(_between(image, rails, outline, neighbours if margin else None), rails)


def _checked_outline(polygon: Points, width: int, height: int) -> np.ndarray:
    """The polygon as float64 (n, 2), clipped to the page. Raises ImageError."""
    try:
        outline = np.asarray(polygon, np.float64)
    except (TypeError, ValueError) as error:
        raise ImageError(f"a polygon that is not a list of (x, y) points ({error}); correct it") from None
    if outline.ndim != 2 or outline.shape[1] != 2 or len(outline) < 3 or not np.isfinite(outline).all():
        raise ImageError(f"a polygon of shape {outline.shape}: three or more finite (x, y) points expected; correct it")
    low, high = outline.min(axis=0), outline.max(axis=0)
    held = np.clip(outline, 0, (width, height))
    held_low, held_high = held.min(axis=0), held.max(axis=0)
    area, area_on_page = np.prod(high - low), np.prod(held_high - held_low)
    where = f"a polygon from ({low[0]:g}, {low[1]:g}) to ({high[0]:g}, {high[1]:g})"
    if area_on_page < _LEAST_ON_PAGE * area:
        raise ImageError(
            f"{where} lies outside the page of {width}x{height} px; does it belong to another page or scale?"
        )
    if (held_high - held_low).min() < 1:
        raise ImageError(f"{where} encloses less than a pixel; correct or remove it")
    return held


def _checked_baseline(baseline: Points | None) -> np.ndarray | None:
    if baseline is None:
        return None
    try:
        points = np.asarray(baseline, np.float64)
    except (TypeError, ValueError) as error:
        raise ImageError(f"a baseline that is not a list of (x, y) points ({error}); correct it") from None
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ImageError(f"a baseline of shape {points.shape}: finite (x, y) points expected; correct it")
    # A single point, or equal ends, give no direction: the polygon is used instead.
    return points if len(points) > 1 and np.linalg.norm(points[-1] - points[0]) >= 1 else None


def _as_rectangle(outline: np.ndarray) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 if the outline is an upright rectangle, which needs no interpolation; else None."""
    low, high = outline.min(axis=0), outline.max(axis=0)
    if len(outline) != 4 or not np.all((outline == low) | (outline == high)) or len(np.unique(outline, axis=0)) != 4:
        return None
    x0, y0, x1, y1 = np.rint([*low, *high]).astype(int).tolist()
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def corners_of(outline: np.ndarray) -> np.ndarray | None:
    """The corners of a convex quadrilateral, float64 (4, 2), clockwise from the upper left; None for other shapes.

    The upper edge is the one that points most directly to the right, whatever its length.
    """
    if len(outline) != 4 or not cv2.isContourConvex(outline.astype(np.float32)):
        return None
    edges = np.roll(outline, -1, axis=0) - outline
    if edges[0, 0] * edges[1, 1] < edges[0, 1] * edges[1, 0]:  # counter-clockwise on the page
        outline = outline[::-1]
        edges = np.roll(outline, -1, axis=0) - outline
    lengths = np.linalg.norm(edges, axis=1)
    rightwards = (edges[:, 0] - np.roll(edges, -2, axis=0)[:, 0]) / np.maximum(lengths + np.roll(lengths, -2), 1e-9)
    return np.roll(outline, -int(rightwards.argmax()), axis=0)


def _curved_rails(outline: np.ndarray, baseline: np.ndarray | None) -> np.ndarray:
    """Rails at constant distances from the line's baseline, or its centre line, that enclose the whole outline.

    It works in a frame whose x axis is the line's chord, where the line is a function y(x).
    """
    frame = _frame(outline, baseline)
    dense = _resampled(np.vstack([outline, outline[:1]]), 1.0) @ frame
    if baseline is not None:
        guide = _resampled(baseline, 1.0) @ frame
        weights = np.ones(len(guide))
    else:
        guide, weights = _centres(dense)
    curve = _curve(guide, weights, _LEAST_BEND * float(np.median(weights)) if baseline is None else 0.0)

    x = np.arange(dense[:, 0].min(), dense[:, 0].max() + 1.0)
    y = curve(x)
    slope = np.gradient(y, x) if len(x) > 1 else np.zeros_like(x)
    across = (dense[:, 1] - np.interp(dense[:, 0], x, y)) / np.sqrt(1 + np.interp(dense[:, 0], x, slope) ** 2)
    above, below = across.min(), across.max()

    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    straight = np.ptp(slope) < 1e-9  # but for rounding
    stations = 2 if straight else max(2, round(length[-1] / max(_STATION_STEP * (below - above), 1.0)) + 1)
    at = np.interp(np.linspace(0, length[-1], stations), length, x)
    along = np.column_stack([at, np.interp(at, x, y)])
    tilt = np.interp(at, x, slope)
    normal = np.column_stack([-tilt, np.ones_like(tilt)]) / np.sqrt(1 + tilt**2)[:, None]
    return np.stack([along + above * normal, along + below * normal]) @ frame.T


def _frame(outline: np.ndarray, baseline: np.ndarray | None) -> np.ndarray:
    """(2, 2), with the axes along and across the line as columns: `points @ frame` are points in the frame."""
    if baseline is not None:
        direction = baseline[-1] - baseline[0]
    else:
        corners = cv2.boxPoints(cv2.minAreaRect(outline.astype(np.float32)))
        edges = np.diff(corners[:3], axis=0)
        direction = edges[np.argmax(np.abs(edges[:, 0]) / np.maximum(np.linalg.norm(edges, axis=1), 1e-9))]
        direction = direction if direction[0] >= 0 else -direction
    length = np.linalg.norm(direction)
    along = direction / length if length > 0 else np.array([1.0, 0.0])
    return np.array([[along[0], -along[1]], [along[1], along[0]]])


def _resampled(points: np.ndarray, step: float) -> np.ndarray:
    """Points along a polyline, at most `step` px apart."""
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    at = np.linspace(0, lengths[-1], max(2, int(np.ceil(lengths[-1] / step)) + 1))
    return np.column_stack([np.interp(at, lengths, points[:, 0]), np.interp(at, lengths, points[:, 1])])


def _centres(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The centre of the outline at each px along the line, and its height there."""
    columns = np.floor(dense[:, 0] - dense[:, 0].min()).astype(int)
    top, bottom = np.full(columns.max() + 1, np.inf), np.full(columns.max() + 1, -np.inf)
    np.minimum.at(top, columns, dense[:, 1])
    np.maximum.at(bottom, columns, dense[:, 1])
    held = np.isfinite(top)
    x = np.flatnonzero(held) + dense[:, 0].min()
    return np.column_stack([x, (top[held] + bottom[held]) / 2]), np.maximum(bottom[held] - top[held], 1.0)


def _curve(guide: np.ndarray, weights: np.ndarray, least_bend: float) -> Callable[[np.ndarray], np.ndarray]:
    """y(x) fitted to the guide's points, extended straight at both ends; straight if it bends little, or wildly."""
    low, high = float(guide[:, 0].min()), float(guide[:, 0].max())
    degree = min(_CURVE_DEGREE, int(high - low))  # no more than the points determine
    chord, fitted = (
        np.polynomial.Polynomial.fit(guide[:, 0], guide[:, 1], d, domain=[low, max(high, low + 1)], w=weights)
        for d in (min(1, degree), degree)
    )
    inside = np.linspace(low, high, 64)
    bend = np.abs(fitted(inside) - chord(inside)).max()
    steepest = np.abs(fitted.deriv()(inside) - chord.deriv()(inside)).max()
    if bend <= least_bend or steepest > _MOST_SLOPE:
        fitted = chord
    tangent = fitted.deriv()

    def curve(x: np.ndarray) -> np.ndarray:
        held = np.clip(x, low, high)
        return fitted(held) + (x - held) * tangent(held)

    return curve


def _widened(rails: np.ndarray, margin: float) -> np.ndarray:
    """The rails moved apart and extended by `margin` heights on each side."""
    across = rails[1] - rails[0]
    wide = np.stack([rails[0] - margin * across, rails[1] + margin * across])
    height = np.linalg.norm(across, axis=1).mean()
    length = np.linalg.norm(np.diff(rails, axis=1), axis=2).sum(axis=1).mean()
    share = margin * height / max(length, 1e-9)
    stations = rails.shape[1]
    return _along(wide, np.linspace(-share, 1 + share, stations if stations == 2 else stations + 4))


def _between(
    image: np.ndarray, rails: np.ndarray, outline: np.ndarray, neighbours: Sequence[Points] | None
) -> np.ndarray:
    """The pixels between the rails, uint8 (h, w) or (h, w, C).

    Pixels outside the outline become paper; with neighbours (n, 2), only those inside one of them.
    """
    lengths = np.linalg.norm(np.diff(rails, axis=1), axis=2).sum(axis=1)
    width = max(1, round(float(lengths.max())))
    height = max(1, round(float(np.linalg.norm(rails[1] - rails[0], axis=1).max())))
    corner = np.floor(np.minimum(outline.min(axis=0), rails.min(axis=(0, 1)))).clip(0).astype(int)
    x1, y1 = np.ceil(np.maximum(outline.max(axis=0), rails.max(axis=(0, 1)))).astype(int)
    page = image[corner[1] : y1, corner[0] : x1]
    if max(width, height, *page.shape[:2]) > _MAX_SIDE:
        raise ImageError(f"a line of {width}x{height} px is over the limit of {_MAX_SIDE} px; shrink the page")
    upper, lower = _along(rails - corner, (np.arange(width) + 0.5) / width)
    down = ((np.arange(height) + 0.5) / height)[:, None]
    # Pixel centres are at half px in page coordinates, at whole px in OpenCV.
    columns = (upper[:, 0] * (1 - down) + lower[:, 0] * down - 0.5).astype(np.float32)
    rows = (upper[:, 1] * (1 - down) + lower[:, 1] * down - 0.5).astype(np.float32)
    pixels = cv2.remap(page, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    mask = np.full(page.shape[:2], neighbours is not None, np.uint8)
    for polygon, own in [*((one, 0) for one in neighbours or ()), (outline, 1)]:
        cv2.fillPoly(
            mask, [np.rint((np.asarray(polygon) - corner) * _SUBPIXELS - _SUBPIXELS / 2).astype(np.int32)], own, shift=4
        )
    inside = cv2.remap(mask, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return _painted(pixels, inside.astype(bool))


def _along(rails: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Points (2, n, 2) at `share` (n,) of both rails' length, extrapolated straight beyond the ends."""
    intervals = rails.shape[1] - 1
    position = share * intervals
    index = np.clip(np.floor(position).astype(int), 0, intervals - 1)
    part = (position - index)[:, None]
    return rails[:, index] * (1 - part) + rails[:, index + 1] * part


def _painted(pixels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Paint pixels outside with the paper's colour: the median inside, as ink covers less than half of a line."""
    if inside.all() or not inside.any():
        return pixels
    height, width = inside.shape
    windows = max(1, round(width / (_PAPER_STEP * height)))
    edges = np.linspace(0, width, windows + 1).astype(int)
    middles, papers = [], []
    for start, end in zip(edges[:-1], edges[1:]):
        part = pixels[:, start:end][inside[:, start:end]]
        if len(part):
            middles.append((start + end) / 2)
            papers.append(np.median(part, axis=0))
    levels = np.asarray(papers, np.float64).reshape(len(papers), -1)  # (windows, C)
    at = np.arange(width) + 0.5
    paper = np.stack([np.interp(at, middles, channel) for channel in levels.T], axis=-1)
    paper = np.rint(paper).astype(np.uint8).reshape(1, width, *pixels.shape[2:])
    return np.where(inside.reshape(height, width, *[1] * (pixels.ndim - 2)), pixels, paper)
