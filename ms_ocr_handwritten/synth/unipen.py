"""Lines from real pen trajectories: words of one writer side by side, whole lines, letters, digits and punctuation.

Each line gets a new pose (slant, widths, a smooth warp, the baseline), another pen, and the synthesiser's papers.
The positions of characters in a word are unknown, so these lines are trained with CTC, like images of real lines.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ms_ocr_handwritten.geometry import COLUMN_WIDTH, LINE_HEIGHT
from ms_ocr_handwritten.synth import writer
from ms_ocr_handwritten.synth.glyphs import resample
from ms_ocr_handwritten.synth.ink import draw_chains, over_sampling
from ms_ocr_handwritten.synth.layout import frame
from ms_ocr_handwritten.synth.line import Settings, scan
from ms_ocr_handwritten.synth.pens import Ink, Pens

KINDS = {"word": 0.12, "words": 0.38, "text": 0.25, "single": 0.12, "string": 0.06, "spelt": 0.07}
_SINGLE = {"lower": 0.5, "upper": 0.22, "digit": 0.16, "symbol": 0.12}
_SELDOM = frozenset("\\^_`{|}~<>[]@#")  # rarely handwritten marks, but requested as often as others
_SELDOM_KEPT = 0.15  # share of them that is used: alone, many of them look like strokes of hanzi
_STEP = 0.035  # em between the points of a stroke


@dataclass(frozen=True)
class Hand:
    """How a line is posed and inked; lengths in em."""

    slant: float
    stretch: float  # of the width
    space: float  # between words
    letter_space: float  # between letters placed one by one
    drift: float  # slope of the baseline
    wave: float
    turn: float  # of individual words
    size: float  # relative change of size from word to word
    warp: float
    pen: float
    speed: float  # how much thinner quick strokes are, 0 to 1
    smooth: int


def draw_hand(rng: np.random.Generator) -> Hand:
    normal, uniform = rng.normal, rng.uniform
    return Hand(
        slant=float(np.clip(normal(0, 0.17), -0.45, 0.5)),
        stretch=float(np.exp(np.clip(normal(-0.02, 0.17), -0.45, 0.45))),
        space=float(uniform(0.15, 0.6)),
        letter_space=float(uniform(0.02, 0.22)),
        drift=float(normal(0, 0.01)),
        wave=float(0.04 * rng.random()),
        turn=float(normal(0, 0.02)),
        size=float(0.07 * rng.random()),
        warp=float(0.03 * rng.random()),
        pen=float(np.clip(np.exp(normal(np.log(0.042), 0.45)), 0.016, 0.13)),
        speed=float(rng.random() ** 2),
        smooth=int(rng.integers(0, 3)),
    )


class PenLines:
    """Draws lines from a file of pen trajectories (`pens`)."""

    def __init__(self, path: str | Path, words: list[str] | None = None) -> None:
        """words: to be spelt with single letters of one writer; None for no such lines."""
        self.pens = Pens(Path(path))
        self.words = words or []

    def sample(
        self, rng: np.random.Generator, settings: Settings, kinds: dict[str, float] | None = None
    ) -> tuple[np.ndarray, str]:
        """A line of at most about `settings.max_width`: uint8 grey (H, W), and its text."""
        kinds = kinds or KINDS
        hand, limit = draw_hand(rng), settings.max_width / LINE_HEIGHT * float(rng.uniform(0.35, 1.1))
        kind = _pick(kinds, rng)
        parts = getattr(self, "_" + kind)(rng, hand, limit) or self._words(rng, hand, limit)
        return _render(parts, hand, settings, rng)

    def _word(self, rng: np.random.Generator, hand: Hand, limit: float) -> list[tuple[Ink, float, str]]:
        return [(self.pens.draw("word", self.pens.writer("word", rng), rng), 0.0, "")]

    def _words(self, rng: np.random.Generator, hand: Hand, limit: float) -> list[tuple[Ink, float, str]]:
        """Words of one writer and the text between them: (ink, em of space before it, text before it)."""
        by, room = self.pens.writer("word", rng), limit
        parts: list[tuple[Ink, float, str]] = []
        while not parts or room > 0:
            word = self.pens.draw("word", by, rng)
            gap = hand.space * float(np.exp(rng.normal(0, 0.15))) if parts else 0.0
            room -= (word.width * hand.stretch + gap) * 0.8
            if parts and (room < 0 or rng.random() < 0.08):
                break
            parts.append((word, gap, " " if parts else ""))
        return parts

    def _text(self, rng: np.random.Generator, hand: Hand, limit: float) -> list[tuple[Ink, float, str]]:
        return [(self.pens.draw("text", self.pens.writer("text", rng), rng), 0.0, "")]

    def _single(self, rng: np.random.Generator, hand: Hand, limit: float) -> list[tuple[Ink, float, str]]:
        """A single letter, digit or mark."""
        while True:
            kind = _pick({k: w for k, w in _SINGLE.items() if k in self.pens.kinds}, rng)
            ink = self.pens.draw(kind, self.pens.writer(kind, rng), rng)
            if ink.text not in _SELDOM or rng.random() < _SELDOM_KEPT:
                return [(ink, 0.0, "")]

    def _string(self, rng: np.random.Generator, hand: Hand, limit: float) -> list[tuple[Ink, float, str]]:
        """Several digits or letters of one writer, in random order."""
        kind = _pick(
            {k: w for k, w in {"digit": 0.6, "lower": 0.25, "upper": 0.15}.items() if k in self.pens.kinds}, rng
        )
        by, count = self.pens.writer(kind, rng), int(rng.integers(2, 9))
        return [(self.pens.draw(kind, by, rng), hand.letter_space if k else 0.0, "") for k in range(count)]

    def _spelt(self, rng: np.random.Generator, hand: Hand, limit: float) -> list[tuple[Ink, float, str]]:
        """Words of a list, spelt with single letters of one writer; nothing if the writer lacks a letter."""
        if not self.words or "lower" not in self.pens.kinds:
            return []
        by = self.pens.writer("lower", rng)
        parts: list[tuple[Ink, float, str]] = []
        for number in range(int(rng.integers(1, 4))):
            word = self.words[int(rng.integers(len(self.words)))]
            for k, character in enumerate(word):
                ink = self.pens.letter(character, by, rng)
                if ink is None:
                    return parts if parts and not k else parts[:-k] if k and len(parts) > k else []
                gap = 0.0 if not parts else hand.letter_space if k else hand.space
                parts.append((ink, gap, " " if not k and number else ""))
        return parts


def _pick(weights: dict[str, float], rng: np.random.Generator) -> str:
    sums = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))]


def _render(
    parts: list[tuple[Ink, float, str]], hand: Hand, settings: Settings, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    strokes, text, cursor, boxes = [], "", 0.0, []
    for ink, gap, before in parts:
        cursor += gap
        size = float(np.exp(hand.size * rng.standard_normal()))
        turn, rise = hand.turn + 0.02 * rng.standard_normal(), 0.03 * rng.standard_normal()
        left = cursor
        for stroke in ink.strokes:
            x, y = stroke[:, 0] * (size * hand.stretch), stroke[:, 1] * size
            strokes.append(np.stack([x + cursor, y + turn * x + rise], 1))
        cursor += ink.width * size * hand.stretch
        boxes.append((left, cursor))
        text += before + ink.text
    chains, speeds = [], []
    for stroke in strokes:
        length = float(np.hypot(*np.diff(stroke, axis=0).T).sum())
        chains.append(resample(stroke, max(4, round(length / _STEP) + 1)))
        speeds.append(np.full(len(chains[-1]), length / len(stroke), np.float32))
    lengths = np.array([len(chain) for chain in chains])
    points = np.concatenate(chains).astype(np.float32)
    owner = np.zeros(len(points), int) if len(parts) == 1 else np.searchsorted([b for _, b in boxes[:-1]], points[:, 0])
    local = points - np.stack([np.array([a for a, _ in boxes])[owner], np.zeros(len(points))], 1).astype(np.float32)
    points += writer.warp_characters(local.astype(np.float32), owner, len(parts), hand.warp, rng) - local
    points[:, 0] -= hand.slant * points[:, 1]
    wave = hand.wave * np.sin(points[:, 0] * rng.uniform(0.2, 1.0) + rng.uniform(0, 6.28))
    points[:, 1] += hand.drift * points[:, 0] + wave
    points = writer.smooth_chains(points, lengths, np.full(len(lengths), hand.smooth))
    speed = np.concatenate(speeds)
    widths = hand.pen * np.clip(1 + hand.speed * 0.5 * (1 - speed / max(1e-3, float(np.median(speed)))), 0.5, 1.5)
    image = _draw(points, lengths, widths.astype(np.float32), boxes, text, hand, settings, rng)
    return image, text


def _draw(
    points: np.ndarray,
    lengths: np.ndarray,
    widths: np.ndarray,
    boxes: list[tuple[float, float]],
    text: str,
    hand: Hand,
    settings: Settings,
    rng: np.random.Generator,
) -> np.ndarray:
    """The image of chains of points, framed like the synthesiser's lines."""
    left, top, right, bottom = frame(points, hand.pen, len(text), rng)
    height = int(settings.heights[int(rng.integers(len(settings.heights)))])
    scale = height / (bottom - top)
    needed = (1.4 * len(text) + 1) * COLUMN_WIDTH * height / LINE_HEIGHT
    wide = max(1.0, needed / ((right - left) * scale))  # CTC needs enough columns
    width, over = max(8, round((right - left) * scale * wide)), over_sampling(height)
    ink = np.zeros((height * over, width * over), np.uint8)
    to_px = np.array([scale * over * wide, scale * over], np.float32)
    draw_chains(ink, (points - (left, top)).astype(np.float32) * to_px, lengths, widths * to_px[1])
    if over > 1:
        ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    in_px = [((a - left) * scale * wide, (b - left) * scale * wide) for a, b in boxes]
    return scan(ink, -top * scale, scale, in_px, settings, rng)
