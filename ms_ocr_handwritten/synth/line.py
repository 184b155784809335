"""Whole lines: text, layout, ink, paper. A line depends on the seed, its index and the settings alone."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ms_ocr_handwritten.errors import ConfigurationError, LabelError
from ms_ocr_handwritten.geometry import COLUMN_WIDTH, LINE_HEIGHT
from ms_ocr_handwritten.synth import digits, glyphs, latin, text, writer
from ms_ocr_handwritten.synth.glyphs import GlyphSet
from ms_ocr_handwritten.synth.ink import draw_ink, over_sampling
from ms_ocr_handwritten.synth.layout import Placed, Source, frame
from ms_ocr_handwritten.synth.running import RunningHand
from ms_ocr_handwritten.training import paper

_HAN_WEIGHTS = {
    "strokes": 62,
    "long-cang": 9,
    "zhi-mang-xing": 8,
    "LXGWWenKai-Light": 3,
    "LXGWWenKai-Regular": 2,
    "setofont": 3,
    "ma-shan-zheng": 1.5,
    "klee-one": 1.5,
    "iansui": 1.5,
    "zen-kurenaido": 1.5,
    "yomogi": 1.5,
    "hachi-maru-pop": 0.5,
    "kouzan-mouhitsu-gyosho": 1,
    "yusei-magic": 1,
    "yuji-boku": 0.5,
    "kouzan-mouhitsu": 0.5,
    "AoyagiKouzanT": 0.5,
    "liu-jian-mao-cao": 1,
}  # how often a writer's hanzi come from each source; the fonts in proportion to what they are worth
_NOT_LATIN = {"liu-jian-mao-cao", "AoyagiKouzanT", "kouzan-mouhitsu", "kouzan-mouhitsu-gyosho", "yuji-boku"}
_REAL_DIGITS = 0.7  # share of writers whose digits are real ones
_CAPITALS_ONLY = ("BecauseWe", "permanent-marker", "rock-salt")  # their small letters look like capitals


@dataclass(frozen=True)
class SynthLine:
    """A drawn line: image uint8 grey (H, W), its text (NFC), and for each character its ink's (x0, x1) in px."""

    image: np.ndarray
    text: str
    boxes: list[tuple[float, float]]


@dataclass(frozen=True)
class Settings:
    """max_width: px at 32 px height; heights: of the image, px; kinds: weights of the kinds of text (text.KINDS)."""

    max_width: int = 252
    short: float = 0.0  # share of lines cut to at most 3 hanzi, for the start of a curriculum
    heights: tuple[int, ...] = (32, 32, 32, 36, 40, 48)
    degrade: float = 1.0  # 0 draws dark ink on clean paper
    kinds: tuple[tuple[str, float], ...] = tuple(text.KINDS.items())


class LineSynthesizer:
    """Draws lines from the inputs that the fetch script stored in `inputs_dir`. Cheap to copy to forked workers."""

    def __init__(self, inputs_dir: str | Path, seed: int, **settings: Any) -> None:
        inputs = Path(inputs_dir)
        self.seed = seed
        try:
            self.settings = Settings(**settings)
        except TypeError as error:
            known = ", ".join(Settings.__dataclass_fields__)
            raise ConfigurationError(f"synthesiser: {error}; known settings: {known}") from None
        self.sets = glyphs.load(inputs) + latin.hands()
        self.texts = text.TextSource(inputs, {c for s in self.sets for c in s.index})
        self._han = _Weighted((s, _HAN_WEIGHTS.get(s.name, 0.5)) for s in self.sets if "的" in s or "一" in s)
        letters = [s for s in self.sets if all(c in s for c in "aegxAB19,.") and s.name not in _NOT_LATIN]
        drawn = sum(s.kind == "stroke" for s in letters)
        share = max(1, len(letters) - drawn)  # strokes as often as fonts
        latin_hands = [(s, share / drawn if s.kind == "stroke" else 1.0) for s in letters]
        self._latin = _Weighted(latin_hands)
        self._mixed_case = _Weighted((s, w) for s, w in latin_hands if not s.name.startswith(_CAPITALS_ONLY))
        self._digits = _Weighted((s, 1.0) for s in digits.hands(inputs / "digits"))
        strokes = [s for s in self.sets if s.kind == "stroke" and "一" in s]
        self._running = RunningHand(strokes[0]) if strokes else None
        self._fallback = sorted(self.sets, key=lambda s: (s.kind != "stroke", s.name not in dict(_HAN_WEIGHTS), s.name))

    def sample(self, index: int, max_width: int | None = None) -> SynthLine:
        """Line number `index`; `max_width` (px at 32 px height) overrides that of the settings."""
        rng = np.random.default_rng((self.seed, index))
        settings = self.settings if max_width is None else replace(self.settings, max_width=max_width)
        limit = settings.max_width / LINE_HEIGHT * float(rng.uniform(0.9, 1.25))
        if rng.random() < settings.short:
            limit = min(limit, 3.0)
        label = self.texts.sample(rng, max(1.0, limit), dict(settings.kinds))
        return self._draw(label, settings, rng)

    def draw(self, label: str, rng: np.random.Generator) -> SynthLine:
        """Draw `label` in a new hand. The end of the text is dropped if it does not fit in max_width.

        Raises LabelError if no source has a character, or the label is empty or has a space at an end.
        """
        lacking = [c for c in dict.fromkeys(label) if c not in self.texts.allowed]
        if lacking or not label or label != label.strip():
            raise LabelError(f"cannot draw {label!r}: no glyphs for {''.join(lacking)!r}, or nothing to draw at an end")
        return self._draw(label, self.settings, rng)

    def _draw(self, label: str, settings: Settings, rng: np.random.Generator) -> SynthLine:
        style = writer.draw_style(rng)
        sources = [self._or_running(source, style, rng) for source in self._choose(label, rng)]
        placed = Placed(label, sources, style, rng)
        return _render(placed, style, settings, rng)

    def _or_running(self, source: Source | None, style: writer.Style, rng: np.random.Generator) -> Source | None:
        """Occasionally the running forms of `source`, if there are any."""
        running = self._running if source is not None and source.name == "strokes" else None
        return running if running and rng.random() < style.running else source

    def _choose(self, label: str, rng: np.random.Generator) -> list[GlyphSet | None]:
        """The source of each character: the writer's own, else one that has it. None for a space."""
        letters = self._latin if label.upper() == label else self._mixed_case
        han = _covering(self._han, [c for c in label if c >= "\u2e80"], rng)
        latin = _covering(letters, [c for c in label if " " < c < "\u2e80"], rng)
        real = self._digits.draw(rng) if self._digits.sources and rng.random() < _REAL_DIGITS else latin
        chosen: list[GlyphSet | None] = []
        for character in label:
            own = han if character >= "\u2e80" else real if character in real else latin
            if character == " ":
                chosen.append(None)
            elif character in own:
                chosen.append(own)
            else:
                having = [s for s in self._fallback if character in s]
                chosen.append(having[0] if rng.random() < 0.6 else having[int(rng.integers(len(having)))])
        return chosen


def draw_in_hand(
    label: str, hand: GlyphSet, style: writer.Style, settings: Settings, rng: np.random.Generator
) -> SynthLine:
    """Draw `label` with the glyphs and the style of one hand, cut as in `LineSynthesizer.draw`.

    Raises LabelError if the hand lacks a character.
    """
    lacking = "".join(dict.fromkeys(c for c in label if c != " " and c not in hand))
    if lacking or not label or label != label.strip():
        raise LabelError(f"cannot draw {label!r}: no glyphs for {lacking!r}, or nothing to draw at an end")
    placed = Placed(label, [None if c == " " else hand for c in label], style, rng)
    return _render(placed, style, settings, rng)


class _Weighted:
    """Sources to sample from, each with its weight."""

    def __init__(self, weighted: Iterable[tuple[GlyphSet, float]]):
        weighted = list(weighted)
        self.sources = [source for source, _ in weighted]
        self._sums = np.cumsum([weight for _, weight in weighted])

    def draw(self, rng: np.random.Generator) -> GlyphSet:
        return self.sources[int(np.searchsorted(self._sums, rng.random() * self._sums[-1], side="right"))]


def _covering(weighted: _Weighted, characters: list[str], rng: np.random.Generator) -> GlyphSet:
    """A source sampled by weight; up to three tries for one that has all characters."""
    for _ in range(3):
        found = weighted.draw(rng)
        if all(c in found for c in characters):
            break
    return found


def _render(placed: Placed, style: writer.Style, settings: Settings, rng: np.random.Generator) -> SynthLine:
    left, top, right, bottom = frame(placed.points, style.pen, len(placed.inked), rng)
    limit = settings.max_width / LINE_HEIGHT * (bottom - top)  # em that fit
    if right - left > limit and len(placed.inked) > 1:
        fits = np.flatnonzero(placed.high - left <= limit)
        count = int(placed.inked[max(0, fits[-1] if len(fits) else 0)]) + 1
        placed.cut(len(placed.label[:count].rstrip()))
        right = float(placed.points[:, 0].max()) + style.pen + abs(rng.normal(0, 0.1))
    height = int(settings.heights[int(rng.integers(len(settings.heights)))])
    scale = height / (bottom - top)
    repeats = sum(a == b for a, b in zip(placed.label, placed.label[1:]))
    needed = (1.4 * (len(placed.label) + repeats) + 1) * COLUMN_WIDTH * height / LINE_HEIGHT
    wide = max(1.0, needed / max(1e-3, (right - left) * scale))  # CTC needs enough columns
    width = max(8, round((right - left) * scale * wide))
    over = over_sampling(height)
    ink = draw_ink(placed, style, (scale * over * wide, scale * over, -left, -top), (height * over, width * over), rng)
    if over > 1:
        ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
    half = 0.5 * style.pen

    def to_px(x: float) -> float:
        return float(np.clip((x - left) * scale * wide, 0, width))

    by_character = {
        int(i): (to_px(a - half), to_px(b + half)) for i, a, b in zip(placed.inked, placed.low, placed.high)
    }
    boxes = _with_spaces(placed.label, by_character)
    image = scan(ink, -top * scale, scale, [by_character[i] for i in sorted(by_character)], settings, rng)
    return SynthLine(image, placed.label, boxes)


def _with_spaces(label: str, found: dict[int, tuple[float, float]]) -> list[tuple[float, float]]:
    """Boxes of all characters; a space gets the gap between its neighbours."""
    boxes = []
    for i in range(len(label)):
        if i in found:
            boxes.append(found[i])
            continue
        before = next(found[k] for k in range(i - 1, -1, -1) if k in found)
        after = next(found[k] for k in range(i + 1, len(label)) if k in found)
        boxes.append((min(before[1], after[0]), max(before[1], after[0])))
    return boxes


def scan(
    ink: np.ndarray, baseline: float, em: float, boxes: list, settings: Settings, rng: np.random.Generator
) -> np.ndarray:
    """Ink on paper as seen by a scanner. baseline and em in px of the image."""
    if settings.degrade <= 0:
        return 255 - ink
    if rng.random() < 0.08:
        return paper.binarise(255 - ink, rng)
    if rng.random() < 0.18:
        ink = paper.pencil(ink, rng)
    if rng.random() < 0.15:
        ink = np.maximum(ink, paper.neighbours(ink, rng))
    sheet = paper.make_paper(ink.shape, rng)
    if rng.random() < 0.15:
        paper.add_rules(sheet, baseline + 0.1 * em, em, boxes, rng)
    harm = settings.degrade * (0.35 if rng.random() < 0.55 else 1.0)  # more than half are fairly clean
    return paper.degrade(paper.put_ink(sheet, ink, rng), rng, harm)


def generate(
    inputs_dir: str | Path, lines: int, seed: int, start: int = 0, **settings: Any
) -> Iterator[tuple[bytes, str]]:
    """Lines start .. start + lines - 1 as (PNG bytes, text)."""
    source = LineSynthesizer(inputs_dir, seed, **settings)
    for index in range(start, start + lines):
        drawn = source.sample(index)
        done, data = cv2.imencode(".png", drawn.image)
        assert done, f"line {index} cannot be written as PNG"
        yield data.tobytes(), drawn.text
