"""Glyphs as points: pen strokes from stroke order data, outlines from fonts.

Both are stored in em, y down, origin at the left end of the baseline; a hanzi fills about (0, 1) x (-0.88, 0.12).
Outlines are traced from a rendering at 128 px, so a glyph that a font maps but leaves empty is omitted.
`load` builds DIR/glyphs.npz once (a minute) and reads it from then on.
"""

import json
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ms_ocr_handwritten.errors import ConfigurationError
from ms_ocr_handwritten.synth import charset

STROKE_POINTS = 20  # points per stroke, evenly spaced along its length
UNITS = 1024  # stored units per em
TRACE_SIZE = 128  # px per em of the traced rendering
_CACHE_VERSION = 5
_STROKE_TOP = 900  # y of the top of the em box in the stroke data (1,024 units, y up)
_BASELINE = 0.88  # em from the top of a hanzi's box to the baseline


@dataclass(frozen=True)
class GlyphSet:
    """All glyphs of one source: glyph g has contours glyph_start[g]:glyph_start[g+1], and likewise for points.

    points: int16 (P, 2), x and y in 1/1024 em. For kind "stroke" each contour is an open line of 20 points; for kind
    "outline" a closed polygon, filled even-odd. advance: float32 (G,) em.
    """

    name: str
    kind: str
    index: dict[str, int]
    glyph_start: np.ndarray
    contour_start: np.ndarray
    points: np.ndarray
    advance: np.ndarray

    def __contains__(self, character: str) -> bool:
        return character in self.index

    def glyph(self, character: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Points (P, 2) float32 in em, points of each contour (K,), advance in em. KeyError if it is missing."""
        g = self.index[character]
        bounds = self.contour_start[self.glyph_start[g] : self.glyph_start[g + 1] + 1]
        points = self.points[bounds[0] : bounds[-1]].astype(np.float32) / UNITS
        return points, np.diff(bounds), float(self.advance[g])


def resample(points: np.ndarray, count: int = STROKE_POINTS) -> np.ndarray:
    """(n, 2) -> (count, 2), evenly spaced along the open line."""
    points = np.asarray(points, np.float32)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    at = np.linspace(0, along[-1], count)
    return np.stack([np.interp(at, along, points[:, 0]), np.interp(at, along, points[:, 1])], 1)


def pack(name: str, kind: str, glyphs: dict[str, tuple[list[np.ndarray], float]]) -> GlyphSet:
    """A GlyphSet from contours in em and advances."""
    contours = [contour for found, _ in glyphs.values() for contour in found]
    flat = np.concatenate(contours) if contours else np.zeros((0, 2))
    return GlyphSet(
        name,
        kind,
        {character: g for g, character in enumerate(glyphs)},
        np.cumsum([0] + [len(found) for found, _ in glyphs.values()]).astype(np.int32),
        np.cumsum([0] + [len(contour) for contour in contours]).astype(np.int32),
        np.round(flat * UNITS).astype(np.int16),
        np.array([advance for _, advance in glyphs.values()], np.float32),
    )


def read_strokes(folder: Path, wanted: tuple[str, ...]) -> GlyphSet:
    """The medians of hanzi-writer-data (one JSON file per character) as strokes."""
    found = {}
    for character in wanted:
        path = folder / f"{character}.json"
        if character in "./" or not path.is_file():
            continue
        medians = json.loads(path.read_text(encoding="utf-8"))["medians"]
        strokes = [np.array(m, np.float32) * (1, -1) + (0, _STROKE_TOP) for m in medians if len(m) > 1]
        found[character] = ([resample(s / UNITS - (0, _BASELINE)) for s in strokes], 1.0)
    return pack("strokes", "stroke", found)


def trace(font: ImageFont.FreeTypeFont, character: str) -> list[np.ndarray]:
    """Contours (n, 2) in em of one glyph; empty if the font draws nothing."""
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    if right - left < 1 or bottom - top < 1:
        return []
    image = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4), 0)
    ImageDraw.Draw(image).text((2 - left, 2 - top), character, font=font, fill=255, anchor="ls")
    return [contour + (np.array((left, top)) - 2) / TRACE_SIZE for contour in trace_ink(np.asarray(image) > 110)]


def trace_ink(bitmap: np.ndarray) -> list[np.ndarray]:
    """Outlines (n, 2) in em of the True pixels in a bitmap (H, W) of TRACE_SIZE px per em, including holes."""
    contours, _ = cv2.findContours(bitmap.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    simple = (cv2.approxPolyDP(contour, 0.6, True)[:, 0] for contour in contours)
    return [contour / TRACE_SIZE for contour in simple if len(contour) > 2]


def _mapped(path: Path) -> set[int]:
    from fontTools.ttLib import TTFont

    with TTFont(path, lazy=True, fontNumber=0) as font:
        return set(font.getBestCmap())


def _height(found: dict[str, tuple[list[np.ndarray], float]], sample: str) -> float:
    sizes = [np.ptp(np.concatenate(found[c][0])[:, 1]) for c in sample if c in found]
    return float(np.median(sizes)) if sizes else 0.0


def family(path: Path) -> str:
    """The common name of the files of one hand: "kalam" for kalam-latin-ext-400-normal.woff2."""
    name = path.stem.replace("-400-normal", "")
    for subset in ("-latin-ext", "-latin", "-japanese", "-chinese-simplified", "-chinese-traditional"):
        name = name.removesuffix(subset)
    return name


def read_fonts(paths: list[Path], wanted: tuple[str, ...]) -> GlyphSet:
    """The glyphs of one family as outlines; Latin scaled to an x-height of 0.42 em, hanzi to 0.86 em."""
    found = {}
    for path in paths:
        font = ImageFont.truetype(str(path), TRACE_SIZE)
        mapped = _mapped(path)
        for character in wanted:
            if character == " " or character in found or ord(character) not in mapped:
                continue
            contours = trace(font, character)
            if contours:
                found[character] = (contours, font.getlength(character) / TRACE_SIZE)
    latin, han = _height(found, "xzvuncea"), _height(found, "国图圆画固永是其")
    latin, han = (0.42 / latin if latin else 1.0), (0.86 / han if han else 1.0)
    for character, (contours, advance) in found.items():
        scale = latin if ord(character) < 0x2000 or not han else han
        found[character] = ([c * scale for c in contours], advance * scale)
    return pack(family(paths[0]), "outline", found)


def _foreign_shapes(name: str, character: str) -> bool:
    """liu-jian-mao-cao draws traditional shapes for simplified code points: keep only what is also in Big5."""
    if not name.startswith("liu-jian") or ord(character) < 0x3000:
        return False
    try:
        character.encode("big5")
    except UnicodeEncodeError:
        return True
    return character in "后里云面谷系只台几斗制发干复余松丑卜冲范岳才向郁舍征辟表谷丰千秋叶吁曲困朴采折术"


def build(inputs: Path, wanted: tuple[str, ...]) -> list[GlyphSet]:
    """Read every source below `inputs`: strokes/ first, then fonts/ in order of name."""
    sets = [read_strokes(inputs / "strokes", wanted)]
    families: dict[str, list[Path]] = {}
    for path in sorted((inputs / "fonts").glob("*"), key=lambda p: ("-latin-ext" in p.stem, p.name)):
        if path.suffix.lower() in (".woff2", ".woff", ".ttf", ".otf"):
            families.setdefault(family(path), []).append(path)
    for name in sorted(families):
        sets.append(read_fonts(families[name], tuple(c for c in wanted if not _foreign_shapes(name, c))))
    return [s for s in sets if s.index]


def _save(path: Path, sets: list[GlyphSet]) -> None:
    arrays = {"version": np.array(_CACHE_VERSION), "names": np.array([s.name for s in sets])}
    arrays["kinds"] = np.array([s.kind for s in sets])
    for i, s in enumerate(sets):
        arrays[f"{i}.codes"] = np.array([ord(c) for c in s.index], np.int32)
        for field in ("glyph_start", "contour_start", "points", "advance"):
            arrays[f"{i}.{field}"] = getattr(s, field)
    temporary = path.with_suffix(f".{os.getpid()}.npz")
    np.savez(temporary, **arrays)  # type: ignore[arg-type]  # the stubs think that one may be named `allow_pickle`
    temporary.replace(path)


def load(inputs: Path) -> list[GlyphSet]:
    """Every glyph source of `inputs`, from its glyphs.npz if that exists, else built and saved.

    Raises ConfigurationError if `inputs` holds neither strokes nor fonts.
    """
    path = inputs / "glyphs.npz"
    if path.is_file():
        with np.load(path) as data:
            if int(data["version"]) == _CACHE_VERSION:
                return [
                    GlyphSet(
                        str(name),
                        str(kind),
                        {chr(code): g for g, code in enumerate(data[f"{i}.codes"])},
                        *(data[f"{i}.{field}"] for field in ("glyph_start", "contour_start", "points", "advance")),
                    )
                    for i, (name, kind) in enumerate(zip(data["names"], data["kinds"]))
                ]
    sets = build(inputs, tuple(c for c in charset.characters() if unicodedata.normalize("NFC", c) == c))
    if not sets:
        raise ConfigurationError(f"{inputs}: neither strokes/ nor fonts/ with glyphs; run the fetch script first")
    _save(path, sets)
    return sets
