"""Real digits as glyphs: "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, CC BY 4.0).

scikit-learn ships its test part: 1,797 digits by 13 writers, 8x8 counts of the ink in a bitmap of 32x32, writer by
writer. The k-th sample of each digit makes hand k, so that most hands are of one writer.
"""

from pathlib import Path

import cv2
import numpy as np

from ms_ocr_handwritten.synth.glyphs import TRACE_SIZE, GlyphSet, pack, trace_ink

HEIGHT = 0.84  # em, as tall as the capitals of latin.py
_SIDE = 0.05  # em of white on either side
_CELLS, _FULL = 8, 16.0  # of the data: cells on a side, and a cell full of ink
_LEVELS = 0.34, 0.5  # how full a point must be to be ink, from broad to fine
_THINNER = 0.06  # em, at most, that is taken off either side of a stroke: the counts blur fine pens to broad ones
_BLUR = 0.18  # of a cell, against the stairs of the 8x8 grid


def hands(path: Path, seed: int = 6) -> list[GlyphSet]:
    """Glyph sets "digits-k" from digits.csv.gz, rows of 64 counts and the digit; none where the file is not there."""
    if not path.is_file():
        return []
    rows = np.loadtxt(path, delimiter=",")
    rng = np.random.default_rng(seed)
    samples = {str(digit): rows[rows[:, 64] == digit, :64] for digit in range(10)}
    sets = []
    for k in range(min(map(len, samples.values()))):
        pen = float(rng.uniform(*_LEVELS)), round(float(rng.uniform(0, _THINNER)) * TRACE_SIZE)
        drawn = {digit: _contours(found[k].reshape(_CELLS, _CELLS), *pen) for digit, found in samples.items()}
        sets.append(pack(f"digits-{k}", "outline", {d: (c, _advance(c)) for d, c in drawn.items() if c}))
    return sets


def _contours(counts: np.ndarray, level: float, thinner: int) -> list[np.ndarray]:
    """Outlines in em of 8x8 counts: the baseline is the lower end of the ink, its left end lies _SIDE to the right.

    thinner: px taken off either side of a stroke, fewer where it would break or lose a hole.
    """
    size = round(HEIGHT * TRACE_SIZE / _CELLS)  # px of a cell
    padded = np.pad(counts.astype(np.float32) / _FULL, 1)
    smooth = cv2.resize(padded, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
    smooth = cv2.GaussianBlur(smooth, (0, 0), _BLUR * size)
    ink = (smooth > level).astype(np.uint8)
    broad = trace_ink(ink)
    if not broad:
        return []
    for radius in range(thinner, -1, -1):
        found = trace_ink(cv2.erode(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)))
        if len(found) == len(broad):
            break
    points = np.concatenate(found)
    corner = (points[:, 0].min() - _SIDE, points[:, 1].max())
    return [contour - corner for contour in found]


def _advance(contours: list[np.ndarray]) -> float:
    return float(np.concatenate(contours)[:, 0].max()) + _SIDE
