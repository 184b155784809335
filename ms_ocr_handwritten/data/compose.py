"""Lines composed of the single characters of one writer (a .gnt file), with texts from a file.

Such lines train a network nearly as well as real ones: Messina and Louradour (ICDAR 2015), Shen and Messina (ICFHR
2016), "A method of synthesizing handwritten Chinese images for data augmentation". Each character is that writer's
own, at its original size; gaps and a slow baseline drift are random, reproducible by the seed.

A .gnt file does not record the vertical position, so it is derived from the character: commas and full stops low,
quotes high, letters and digits on the baseline, all others centred.
"""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import DataError, LabelError
from .casia import characters, decode, paste, writer_of
from .record import BadRecord, ReadOptions, Record, Records

_LOW = frozenset("，。、；,._…")
_HIGH = frozenset("“”‘’\"'`^°")
_SPACES = frozenset(" \u3000")
_GAP = (0.03, 0.16)  # between characters, in median character heights: minimum and maximum
_SPACE = 0.45  # width of a space, likewise
_DRIFT = 0.02  # of the baseline between two characters, likewise (standard deviation)
_JITTER = 0.03


def compose(file: Path, name: str, options: ReadOptions) -> Records:
    """`options.compose` lines of the writer of `file`: texts in the order of their file, from a random starting point.

    Texts with a character that the writer has not written are skipped; if too few remain, a BadRecord says how
    many lines are missing. Raises DataError if the .gnt file is damaged or no text file is given.
    """
    texts = _texts(options.texts)
    glyphs: dict[str, list[np.ndarray]] = {}
    for _, code, bitmap in characters(file):
        try:
            glyphs.setdefault(decode(code), []).append(bitmap)
        except LabelError:
            continue  # ink that is not a character; reported where the characters are read
    writer = writer_of(file)
    random = np.random.default_rng([options.seed, *writer.encode()])
    number = 0
    for text in _from(texts, int(random.integers(len(texts)))):
        if number == options.compose:
            return
        if all(character in glyphs or character in _SPACES for character in text):
            number += 1
            yield Record(
                where=f"{file}: composed line {number}",
                text=text,
                image=_line(text, glyphs, random),
                source=f"{name}#composed-{number}",
                writer=writer,
                page=file.stem,
            )
    if number < options.compose:
        error = DataError(
            f"{file}: {number} lines of {options.compose} composed: no other text of {options.texts} can be "
            f"written with this writer's {len(glyphs)} characters; give more or shorter texts"
        )
        yield BadRecord(str(file), error)


@lru_cache(maxsize=1)  # requested for each writer's file
def _texts(path: Path | None) -> list[str]:
    if path is None:
        raise DataError("composing lines needs a text to write; name a UTF-8 file with one text per line (--texts)")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); give another file") from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise DataError(f"{path}: contains no text; write one text per line")
    return texts


def _from(texts: list[str], start: int) -> Iterator[str]:
    yield from texts[start:]
    yield from texts[:start]


def _line(text: str, glyphs: dict[str, list[np.ndarray]], random: np.random.Generator) -> np.ndarray:
    """uint8 (H, W): the text on a background as high as its ink."""
    chosen = [
        None if character in _SPACES else glyphs[character][int(random.integers(len(glyphs[character])))]
        for character in text
    ]
    size = float(np.median([bitmap.shape[0] for bitmap in chosen if bitmap is not None]))
    drift, x = 0.0, 0.0
    places = []
    for character, bitmap in zip(text, chosen):
        drift += random.normal(0, _DRIFT) * size
        if bitmap is None:
            x += _SPACE * size
            continue
        top = _top(character, bitmap.shape[0], size) + drift + random.normal(0, _JITTER) * size
        places.append((round(top), round(x), bitmap))
        x += bitmap.shape[1] + random.uniform(*_GAP) * size
    return paste(places)


def _top(character: str, height: int, size: float) -> float:
    """The top of the character, in px below the top of a line of characters of `size` px."""
    if character in _LOW or (character.isascii() and character.isalnum()):
        return size - height
    if character in _HIGH:
        return 0.0
    return (size - height) / 2
