"""Lays out the characters of a line: shapes deformed by the writer, spacing, baseline, and the surrounding frame."""

import numpy as np

from ms_ocr_handwritten.synth import latin, writer
from ms_ocr_handwritten.synth.glyphs import STROKE_POINTS, GlyphSet
from ms_ocr_handwritten.synth.running import RunningHand

Source = GlyphSet | RunningHand


class Placed:
    """The laid-out characters of a line in em: flat points with their character, and where each contour begins."""

    def __init__(self, label: str, sources: list[Source | None], style: writer.Style, rng: np.random.Generator):
        self.label, self.style = label, style
        found = [None if s is None else s.glyph(c) for c, s in zip(label, sources)]
        glyphs = [f for f in found if f is not None]
        inked = [i for i, f in enumerate(found) if f is not None]
        counts = np.array([len(points) for points, _, _ in glyphs])
        self.inked = np.array(inked)
        self.owner = np.repeat(np.arange(len(inked)), counts)  # index into self.inked
        self.points = np.concatenate([points for points, _, _ in glyphs])
        self.contours = np.concatenate([contours for _, contours, _ in glyphs])  # points per contour
        self.contour_owner = np.repeat(np.arange(len(inked)), [len(contours) for _, contours, _ in glyphs])
        self.is_stroke = np.array([s.kind == "stroke" for s in sources if s is not None])
        joint = [s is not None and latin.runs_on(s.name, c) for c, s in zip(label, sources)] + [False]
        self.linked = np.array([joint[i] and joint[i + 1] for i in inked])
        self.letter = np.array([joint[i] for i in inked])
        self.han = np.array([label[i] >= "\u2e80" for i in inked])
        self._bend(style, rng)
        self._lay_out(label, found, style, rng)

    def _bend(self, style: writer.Style, rng: np.random.Generator) -> None:
        """Deform strokes and characters."""
        stroke_points = self.is_stroke[self.owner]
        if stroke_points.any():
            strokes = self.points[stroke_points].reshape(-1, STROKE_POINTS, 2)
            strokes, owner = writer.bend_strokes(strokes, style, rng), self.owner[stroke_points][::STROKE_POINTS]
            apart = writer.spread_strokes(strokes, owner, style, rng)
            strokes = np.where(self.han[owner, None, None], apart, strokes)  # the strokes of a letter touch
            self.points[stroke_points] = strokes.reshape(-1, 2)
        han = self.han
        free = np.where(self.is_stroke | han, 1.0, 0.5).astype(np.float32)  # letters of fonts keep their joints
        warped = writer.warp_characters(self.points, self.owner, len(self.inked), style.warp, rng)
        self.points += (warped - self.points) * free[self.owner][:, None]
        along = np.linspace(-0.5, 0.5, len(han)) if len(han) > 1 else np.zeros(1)
        scale = (np.where(han, 1.0, style.latin_scale) * np.exp(style.growth * along)).astype(np.float32)
        strength = float(0.4 + 0.6 * (free.mean() - 0.5) * 2)
        shaped = writer.shape_characters(self.points, self.owner, scale, han, style, strength, rng)
        shaped[:, 0] -= style.lean * along[self.owner] * shaped[:, 1]
        self.points = shaped.astype(np.float32)

    def _lay_out(self, label: str, found: list, style: writer.Style, rng: np.random.Generator) -> None:
        """Place the characters side by side on a drifting baseline."""
        starts = np.flatnonzero(np.diff(self.owner, prepend=-1))
        low, high = np.minimum.reduceat(self.points[:, 0], starts), np.maximum.reduceat(self.points[:, 0], starts)
        shift = np.zeros(len(self.inked), np.float32)
        noise = rng.standard_normal(len(label))
        rise = style.rise_jitter * rng.standard_normal(len(self.inked)).astype(np.float32)
        cursor, k = 0.0, 0
        track = style.spacing * 0.35 if not self.is_stroke.all() else style.spacing
        for i, character in enumerate(label):
            if found[i] is None:
                cursor += style.space * (1 + 0.2 * noise[i])
                continue
            if character >= "\u2e80":
                grid = style.pitch * (1.0 if character not in "、。《》〈〉「」『』【】〔〕" else 0.4)
                gap = style.spacing + 0.03 * noise[i]
                cell = found[i][2] * style.aspect
                ink = float(high[k] - low[k])
                advance = grid * max(cell, ink * 0.9) + (1 - grid) * ink + gap
                shift[k] = cursor + 0.5 * (advance - gap - ink) - low[k]
            else:
                extra = 0.3 * track if self.letter[k] else track
                advance = found[i][2] * style.latin_scale * style.aspect + extra + 0.012 * noise[i]
                shift[k] = cursor
                rise[k] *= 0.5
            cursor += max(advance, 0.05)
            k += 1
        self.points[:, 0] += shift[self.owner]
        self.points[:, 1] += rise[self.owner] + self._baseline(style, rng)
        self.low, self.high = low + shift, high + shift

    def _baseline(self, style: writer.Style, rng: np.random.Generator) -> np.ndarray:
        """Height of the baseline at every point: a slope and a slow wave."""
        x = self.points[:, 0]
        wave = 0.03 * rng.random() * np.sin(x * rng.uniform(0.2, 1.0) + rng.uniform(0, 6.28))
        return (style.drift * x + wave).astype(np.float32)

    def cut(self, count: int) -> None:
        """Keep the first `count` characters of the label."""
        kept = int((self.inked < count).sum())
        self.label = self.label[:count]
        point, contour = self.owner < kept, self.contour_owner < kept
        self.points, self.owner = self.points[point], self.owner[point]
        self.contours, self.contour_owner = self.contours[contour], self.contour_owner[contour]
        self.inked, self.is_stroke, self.han = self.inked[:kept], self.is_stroke[:kept], self.han[:kept]
        self.linked, self.letter = self.linked[:kept], self.letter[:kept]
        self.low, self.high = self.low[:kept], self.high[:kept]


def frame(
    points: np.ndarray, pen: float, characters: int, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """The part of the plane that becomes the image of so many characters: left, top, right, bottom in em."""
    half = 0.5 * pen
    left, right = points[:, 0].min() - half, points[:, 0].max() + half
    top, bottom = points[:, 1].min() - half, points[:, 1].max() + half
    kind = rng.random()
    if characters <= 2:
        least = (
            rng.uniform(0.45, 0.75) if kind < 0.35 else rng.uniform(0.9, 1.15) if kind < 0.8 else rng.uniform(1.1, 1.7)
        )
        missing = max(0.0, least - (bottom - top))
        share = float(np.clip(0.5 + 0.12 * rng.standard_normal(), 0.1, 0.9))
        top, bottom = top - share * missing, bottom + (1 - share) * missing
        if rng.random() < 0.6:  # a square cell
            missing = max(0.0, (bottom - top) - (right - left))
            share = float(np.clip(0.5 + 0.12 * rng.standard_normal(), 0.1, 0.9))
            left, right = left - share * missing, right + (1 - share) * missing
    else:
        missing = max(0.0, 0.62 - (bottom - top))
        top, bottom = top - 0.5 * missing, bottom + 0.5 * missing
    margin = np.abs(rng.normal(0, 0.09, 2)) + (-0.02 if kind < 0.08 else 0.0)
    if kind > 0.86:
        margin = margin + rng.uniform(0, 0.5, 2)
    sides = np.abs(rng.normal(0, 0.15, 2)) + (rng.random(2) < 0.06) * rng.uniform(0, 1.5, 2)
    return left - sides[0], top - margin[0], right + sides[1], bottom + margin[1]
