"""Running hand: how fast writers simplify the strokes of stroke order data.

Detected by shape only, in consecutive strokes of a character: a box (口 and what contains one) whose second and third
stroke are one move, the four dots of 灬 as one wave, two stacked dots or bars as one move, and the angle of 讠 as one
curve.
"""

from collections.abc import Iterator

import numpy as np

from ms_ocr_handwritten.synth.glyphs import STROKE_POINTS, GlyphSet, resample

Glyph = tuple[np.ndarray, np.ndarray, float]  # points (P, 2) in em, points of each stroke, advance

_NEAR = 0.13  # em between ends that meet
_SHORT = 0.3  # em, the longest dot


def _length(stroke: np.ndarray) -> float:
    return float(np.hypot(*np.diff(stroke, axis=0).T).sum())


def _is_box(down: np.ndarray, angle: np.ndarray, bottom: np.ndarray) -> bool:
    """Whether three strokes are a left side, a top with the right side, and a bottom."""
    if not abs(down[-1, 0] - down[0, 0]) < 0.5 * (down[-1, 1] - down[0, 1]):
        return False
    right_down = angle[-1] - angle[0]
    starts_above = np.hypot(*(angle[0] - down[0])) < 1.3 * _NEAR
    flat = abs(bottom[-1, 1] - bottom[0, 1]) < 0.35 * (bottom[-1, 0] - bottom[0, 0])
    closes = np.hypot(*(bottom[-1] - angle[-1])) < 1.6 * _NEAR and np.hypot(*(bottom[0] - down[-1])) < 1.6 * _NEAR
    return bool(starts_above and right_down[0] > 0.08 and right_down[1] > 0.08 and flat and closes)


def _is_dot_row(dots: list[np.ndarray]) -> bool:
    """Whether four strokes are the dots of 灬, from left to right."""
    middles = np.array([dot.mean(0) for dot in dots])
    short = all(_length(dot) < _SHORT for dot in dots)
    return bool(short and (np.diff(middles[:, 0]) > 0.08).all() and np.ptp(middles[:, 1]) < 0.14)


def _is_pair(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two short strokes are stacked and run to the right or down, as in 氵 and 冫."""
    apart = second.mean(0) - first.mean(0)
    return bool(_length(first) < _SHORT and _length(second) < 0.36 and apart[1] > 0.08 and abs(apart[0]) < 0.12)


def _is_speech(dot: np.ndarray, angle: np.ndarray) -> bool:
    """Whether two strokes are the dot and the bent stroke of 讠."""
    if not (_length(dot) < _SHORT and 0.35 < _length(angle) < 1.2 and angle[:, 0].max() < 0.46):
        return False
    low = int(angle[:, 1].argmax())
    return bool(dot[:, 1].mean() < angle[:, 1].min() + 0.2 and 8 < low < 19 and np.ptp(angle[:, 1]) > 0.3)


def shortened(strokes: list[np.ndarray]) -> Iterator[np.ndarray]:
    """The strokes (20, 2) of a character in running hand, fewer if some of them have a simplified shape."""
    k = 0
    while k < len(strokes):
        rest = strokes[k:]
        if len(rest) > 3 and _is_dot_row(rest[:4]):
            ends = [point for dot in rest[:4] for point in (dot[0], dot[-1])]
            yield resample(np.array(ends) * (1, 0.5) + (0, 0.5 * np.mean(ends, 0)[1]), STROKE_POINTS)
            k += 4
        elif len(rest) > 2 and _is_box(*rest[:3]):
            yield rest[0]
            yield resample(np.concatenate([rest[1], rest[2][::-1]]), STROKE_POINTS)
            k += 3
        elif k == 0 and len(rest) > 2 and _is_speech(*rest[:2]):
            low = int(rest[1][:, 1].argmax())
            bow = np.concatenate([rest[1][:1], rest[1][low // 2 : low + 1 : 3], rest[1][-1:]])
            yield rest[0]
            yield resample(bow, STROKE_POINTS)
            k += 2
        elif len(rest) > 2 and _is_pair(*rest[:2]):
            yield resample(np.concatenate(rest[:2]), STROKE_POINTS)
            k += 2
        else:
            yield rest[0]
            k += 1


class RunningHand:
    """A set of strokes with its characters in running hand; characters without simplification stay unchanged."""

    name, kind = "running", "stroke"

    def __init__(self, strokes: GlyphSet) -> None:
        self._strokes = strokes
        self._known: dict[str, Glyph] = {}

    def __contains__(self, character: str) -> bool:
        return character in self._strokes

    def glyph(self, character: str) -> Glyph:
        """As GlyphSet.glyph."""
        if character not in self._known:
            points, _, advance = self._strokes.glyph(character)
            short = list(shortened(list(points.reshape(-1, STROKE_POINTS, 2))))
            lengths = np.full(len(short), STROKE_POINTS)
            self._known[character] = np.concatenate(short).astype(np.float32), lengths, advance
        return self._known[character]
