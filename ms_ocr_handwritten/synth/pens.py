"""Pen trajectories of real writers (UNIPEN), by kind and writer.

A file has one JSON object per line: {"kind", "writer", "text", "strokes"}, where kind is word, text (a line of words),
lower, upper, digit or symbol, and a stroke is its first point, then differences: [x0, y0, dx1, dy1, ...], y down. Only
the height of a component shows how large it was written; the position of its baseline is inferred from its letters.
"""

import json
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_ocr_handwritten.errors import ConfigurationError

X_HEIGHT = 0.42  # em, as the letters of latin.py and of the fonts
_ABOVE, _BELOW = 0.9, 0.75  # of the x-height: how far letters extend above it, and below the baseline
_LOW = set("acemnorsuvwxz")  # and marks, which do not count
_HANGING = set("gjpqy")
_LEAST = 4  # units of the file, minimum height of anything but marks
_WORDLESS = re.compile(r"[^A-Za-z0-9]*")


@dataclass(frozen=True)
class Ink:
    """A written component in em, y down, from 0 on the left and with the baseline at 0: strokes of (n, 2) points."""

    text: str
    strokes: list[np.ndarray]

    @property
    def width(self) -> float:
        return float(max(stroke[:, 0].max() for stroke in self.strokes))


class Pens:
    """The components of a file, sampled by kind and writer, all writers equally often."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError if the file is missing or in another format."""
        points: list[np.ndarray] = []
        lengths: list[int] = []
        self._texts: list[str] = []
        ends = [0]
        self._by_writer: dict[str, dict[int, list[int]]] = {}
        for kind, writer, text, strokes in _components(path):
            self._by_writer.setdefault(kind, {}).setdefault(writer, []).append(len(self._texts))
            self._texts.append(text)
            points += strokes
            lengths += map(len, strokes)
            ends.append(len(lengths))
        self._points = np.concatenate(points)
        self._starts = np.cumsum([0, *lengths])
        self._ends = np.array(ends)
        self._writers = {kind: sorted(own) for kind, own in self._by_writer.items()}

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self._writers)

    def writer(self, kind: str, rng: np.random.Generator) -> int:
        """A random writer who has components of that kind."""
        writers = self._writers[kind]
        return writers[int(rng.integers(len(writers)))]

    def draw(self, kind: str, writer: int, rng: np.random.Generator) -> Ink:
        """A random component of that kind by that writer."""
        own = self._by_writer[kind][writer]
        return self.ink(own[int(rng.integers(len(own)))], kind)

    def letter(self, character: str, writer: int, rng: np.random.Generator) -> Ink | None:
        """That letter or digit alone, as written by the writer; None if it is not among the components."""
        kind = "digit" if character.isdigit() else "lower" if character.islower() else "upper"
        own = [k for k in self._by_writer.get(kind, {}).get(writer, ()) if self._texts[k] == character]
        return self.ink(own[int(rng.integers(len(own)))], kind) if own else None

    def ink(self, number: int, kind: str) -> Ink:
        text, first, last = self._texts[number], self._ends[number], self._ends[number + 1]
        strokes = [self._points[self._starts[k] : self._starts[k + 1]].astype(np.float32) for k in range(first, last)]
        every = np.concatenate(strokes)
        left, top = every.min(0)
        height = max(float(np.ptp(every[:, 1])), 1.0)
        x_height, baseline = frame_of(text, height)
        scale = X_HEIGHT / x_height
        return Ink(text, [(stroke - (left, top + baseline)) * scale for stroke in strokes])


def frame_of(text: str, height: float) -> tuple[float, float]:
    """x-height, and the distance of the baseline from the top, of a component with that text and height."""
    letters = [c for c in text if not c.isspace()]
    if _WORDLESS.fullmatch(text):  # marks: as high as the writer made them, in the middle of the line
        x_height = max(height / 2.4, 45.0)
        return x_height, height / 2 + x_height / 2
    above = _ABOVE * any(c not in _LOW and c.isalnum() and c not in "gpqy" for c in letters)
    below = _BELOW * any(c in _HANGING for c in letters)
    x_height = height / (1 + above + below)
    return x_height, x_height * (1 + above)


def _components(path: Path) -> Iterator[tuple[str, int, str, list[np.ndarray]]]:
    """Kind, writer, text without spaces before marks, strokes int16 (n, 2); dots have two points."""
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                strokes = [np.array(stroke, np.int32).reshape(-1, 2).cumsum(0) for stroke in row["strokes"]]
                strokes = [s if len(s) > 1 else np.concatenate([s, s + 1]) for s in strokes if len(s)]
                text = re.sub(r" (?=[,.;:!?])", "", row["text"].replace("\\@", "").strip())
                if "\\" in text and row["kind"] != "symbol":  # signs specific to the collection
                    continue
                if not strokes or not text or max(np.abs(s).max() for s in strokes) > 32000:
                    continue
                if np.ptp(np.concatenate(strokes)[:, 1]) < _LEAST and not _WORDLESS.fullmatch(text):
                    continue
                yield row["kind"], row["writer"], text, [s.astype(np.int16) for s in strokes]
    except (OSError, lzma.LZMAError, ValueError, KeyError) as error:
        raise ConfigurationError(f"{path}: not a file of pen trajectories ({error}); see recipe/README.md") from error
