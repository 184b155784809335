"""The words of a line, for formats that have words."""

import math
from dataclasses import dataclass

import numpy as np

from .reader import PageCharacter, PageLine, Polygon


@dataclass(frozen=True)
class Word:
    """Characters between spaces; `polygon` is their part of the line, four corners in px of the page."""

    text: str
    score: float
    polygon: Polygon

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in whole px, around the polygon."""
        return box_around(self.polygon)


def words_of(line: PageLine) -> list[Word]:
    """In order; a line without characters (an edited one) is one word where it stands."""
    words: list[Word] = []
    chars: list[PageCharacter] = []
    for char in [*line.chars, None]:
        if char is not None and not char.character.isspace():
            chars.append(char)
        elif chars:
            words.append(_word(chars))
            chars = []
    if not words and line.text.strip():
        words.append(Word(line.text.strip(), line.score, line.polygon))
    return words


def box_around(points: Polygon) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in whole px, not negative."""
    low, high = np.min(points, axis=0), np.max(points, axis=0)
    x0, y0 = np.floor(low).clip(0).astype(int).tolist()
    x1, y1 = np.ceil(high).clip(0).astype(int).tolist()
    return x0, y0, x1, y1


def _word(chars: list[PageCharacter]) -> Word:
    text = "".join(char.character for char in chars)
    score = math.exp(sum(math.log(max(char.score, 1e-9)) for char in chars) / len(chars))
    first, last = chars[0].polygon, chars[-1].polygon
    edge, side = np.subtract(first[1], first[0]), np.subtract(first[3], first[0])
    way = np.mean(last, axis=0) - np.mean(first, axis=0)
    along, down = np.dot(way, edge) * np.linalg.norm(side), np.dot(way, side) * np.linalg.norm(edge)
    if abs(along) >= abs(down):
        return Word(text, score, (first[0], last[1], last[2], first[3]))
    upper, lower = (first, last) if down > 0 else (last, first)
    return Word(text, score, (upper[0], upper[1], lower[2], lower[3]))
