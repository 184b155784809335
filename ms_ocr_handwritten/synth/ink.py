"""Ink on an empty mask: outlines filled; strokes joined, smoothed and drawn with a pen of varying width."""

import cv2
import numpy as np

from ms_ocr_handwritten.synth import writer
from ms_ocr_handwritten.synth.glyphs import STROKE_POINTS
from ms_ocr_handwritten.synth.layout import Placed

_LETTER_SMOOTH = 3  # letters are small: more passes of corner cutting would close them
_MERGED_SMOOTH = 4  # more passes for characters drawn in few moves
_INK_HEIGHT = 128  # px, approximately: ink is drawn at this height and scaled down
_LEAST_PEN = 0.022  # of the image height: 0.7 px of 32, below that ink is only a shade
_SHIFT = 4  # fractional bits of the coordinates given to OpenCV


def draw_ink(
    placed: Placed,
    style: writer.Style,
    to_px: tuple[float, float, float, float],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """The ink mask, uint8 `shape`. to_px: scale of x and y, then the shift in em that is applied before."""
    ink = np.zeros(shape, np.uint8)
    scale, shift = np.array(to_px[:2], np.float32), np.array(to_px[2:], np.float32)
    stroke_points = placed.is_stroke[placed.owner]
    if not placed.is_stroke.all():
        _fill_outlines(ink, placed, scale, shift, rng)
    if placed.is_stroke.any():
        strokes = placed.points[stroke_points].reshape(-1, STROKE_POINTS, 2)
        owner = placed.owner[stroke_points][::STROKE_POINTS]
        keep = writer.kept_strokes(strokes, owner, style, rng)
        strokes, owner = strokes[keep], owner[keep]
        if placed.letter.any():  # dots and bars of joined letters come after the word
            first = np.diff(owner, prepend=-1) > 0
            order = np.argsort(placed.letter[owner] & ~first, kind="stable")
            strokes, owner = strokes[order], owner[order]
        merged = rng.random(len(placed.han)) < style.merge
        run_on = writer.joined(strokes, owner, placed.linked, merged, style, rng)
        points, lengths, moves = writer.chains(strokes, run_on)
        last = owner[~run_on]  # the character of the last stroke of each chain
        passes = np.where(merged[last], style.smooth + _MERGED_SMOOTH, style.smooth)
        passes = np.where(placed.han[last], passes, np.minimum(passes, _LETTER_SMOOTH))
        points = writer.smooth_chains(points, lengths, passes)
        widths = writer.pen_widths(points, lengths, moves, style, rng) * scale[1]
        draw_chains(ink, (points + shift) * scale, lengths, widths)
    return ink


def _fill_outlines(
    ink: np.ndarray, placed: Placed, scale: np.ndarray, shift: np.ndarray, rng: np.random.Generator
) -> None:
    """Fill the glyphs of fonts, occasionally a little bolder."""
    points = np.round((placed.points + shift) * scale * (1 << _SHIFT)).astype(np.int32)
    bounds = np.concatenate([[0], np.cumsum(placed.contours)])
    bold = max(0, round(float(rng.normal(0.0, 0.03)) * scale[1]))  # of the contour: half of it lies outside
    for character in np.flatnonzero(~placed.is_stroke):
        own = np.flatnonzero(placed.contour_owner == character)
        polygons = [points[bounds[c] : bounds[c + 1]] for c in own]
        cv2.fillPoly(ink, polygons, 255, cv2.LINE_8, _SHIFT)
        if bold:
            cv2.polylines(ink, polygons, True, 255, bold, cv2.LINE_8, _SHIFT)


def over_sampling(height: int) -> int:
    """Factor by which ink is drawn larger than the image."""
    return max(1, round(_INK_HEIGHT / height))


def draw_chains(ink: np.ndarray, points: np.ndarray, lengths: np.ndarray, widths: np.ndarray) -> None:
    """Draw chains of points (M, 2) px, `lengths` (K,) points each, in pieces of constant integer width (M,) px.

    No pen is drawn finer than what remains visible after scaling down.
    """
    widths = np.maximum(widths, _LEAST_PEN * ink.shape[0])
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    level = np.maximum(0, np.round(0.5 * (widths - 1))).astype(int)  # OpenCV draws 1, 3, 5 .. px for 1, 2, 4 ..
    new = np.zeros(len(points), bool)
    chain_start = np.cumsum(lengths) - lengths
    new[chain_start] = True
    new[1:] |= level[1:] != level[:-1]
    starts = np.flatnonzero(new)
    is_chain_start = np.zeros(len(points) + 1, bool)
    is_chain_start[chain_start] = True
    is_chain_start[-1] = True
    by_level: dict[int, list[np.ndarray]] = {}
    for a, b in zip(starts, np.append(starts[1:], len(points))):
        by_level.setdefault(int(level[a]), []).append(fixed[a : b if is_chain_start[b] else b + 1])
    for k, pieces in by_level.items():
        cv2.polylines(ink, pieces, False, 255, max(1, 2 * k), cv2.LINE_8, _SHIFT)
