"""A report on an LMDB for people: lines, characters, classes, widths, label lengths, duplicate images.

`describe_lmdb` collects it, `html_page` renders it.
"""

import hashlib
import html
import os
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import ImageError, LmdbError
from ..geometry import CHUNK_STEP, scaled_width
from ..image.file import open_image
from ..image.limits import Limits
from ..vocab import Vocabulary, fold_full_width
from .check import Summary, inspect_lmdb
from .resumable import SkippedSample
from .store import LmdbReader

_SHOWN = 200  # rows of a list on the page
_BARS = 40  # of a histogram, at most
_WIDTH, _HEIGHT = 720, 180  # px of a histogram


@dataclass(frozen=True)
class Description:
    """An LMDB as a whole.

    summary: sizes, formats, label lengths, characters
    widths: px of a line at 32 px height, rounded down to tens -> lines
    doubles: groups of keys of images that are identical byte for byte, in key order
    writers: number of writers named in the LMDB
    classes, covered: number of characters of the vocabulary, and of those that occur; 0 without one
    lacking: characters (of the folded labels) that the vocabulary lacks -> occurrences, the most frequent first
    """

    summary: Summary
    widths: dict[int, int]
    doubles: tuple[tuple[str, ...], ...]
    writers: int
    classes: int
    covered: int
    lacking: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """All values, with those of the summary at the same level."""
        own = asdict(self)
        return own.pop("summary") | own


def describe_lmdb(
    path: str | os.PathLike, vocabulary: Vocabulary | None = None, progress: Callable[[int, int], None] | None = None
) -> Description:
    """Examine every record of the LMDB `path`. Raises LmdbError for the LMDB as a whole, as LmdbReader does."""
    summary = inspect_lmdb(path, progress)
    reader = LmdbReader(path)
    widths: Counter[int] = Counter()
    writers: set[str] = set()
    digests = array("Q")
    for index in range(len(reader)):
        try:
            image = reader.image_bytes(index)
            writers.add(reader.beside(index, "writer"))
            with open_image(image, "", Limits()) as opened:
                widths[scaled_width(*opened.size) // 10 * 10] += 1
        except LmdbError:
            image = b"%d" % index  # has no duplicate
        except ImageError:
            pass  # listed in the summary
        digests.append(int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little"))
    characters: Counter[str] = Counter()
    for character, number in summary.characters.items():
        characters[fold_full_width(character)] += number
    lacking = {} if vocabulary is None else dict.fromkeys(vocabulary.unknown("".join(characters)), 0)
    return Description(
        summary=summary,
        widths=dict(sorted(widths.items())),
        doubles=_doubles(np.frombuffer(digests, np.uint64)),
        writers=len(writers - {""}),
        classes=0 if vocabulary is None else len({one for one in vocabulary.characters if one}),
        covered=0 if vocabulary is None else len(characters) - len(lacking),
        lacking={one: number for one, number in characters.most_common() if one in lacking},
    )


def _doubles(digests: np.ndarray) -> tuple[tuple[str, ...], ...]:
    order = np.argsort(digests, kind="stable")
    ends = np.flatnonzero(np.diff(digests[order])) + 1
    groups = [group for group in np.split(order, ends) if len(group) > 1]
    return tuple(tuple(LmdbReader.image_key(int(one)) for one in group) for group in sorted(groups, key=lambda g: g[0]))


def html_page(description: Description, skipped: Sequence[SkippedSample] = ()) -> str:
    """The description as a self-contained HTML page."""
    summary = description.summary
    facts = {
        "lines": summary.samples,
        "characters": sum(summary.characters.values()),
        "different characters": len(summary.characters),
        "writers named": description.writers or "none",
        "duplicate lines": sum(len(group) - 1 for group in description.doubles),
        "records that cannot be read": len(summary.unreadable),
        "left out when it was built": len(skipped),
    }
    if description.classes:
        facts["characters of the vocabulary that occur"] = f"{description.covered} of {description.classes}"
        facts["characters that the vocabulary lacks"] = len(description.lacking)
    parts = [
        _table(facts.items()),
        _histogram(
            "Widths in px at 32 px height",
            description.widths,
            f"a line of up to 804 px is three chunks of {CHUNK_STEP} px",
        ),
        _histogram("Label lengths in characters", summary.label_lengths, "labels as stored"),
        _list("Characters that the vocabulary lacks", [f"{_named(c)} {n}" for c, n in description.lacking.items()]),
        _list("The most frequent characters", [f"{_named(c)} {n}" for c, n in summary.characters.items()]),
        _list("The same image more than once", [", ".join(group) for group in description.doubles]),
        _list("Records that cannot be read", summary.unreadable),
        _list("Left out when it was built", [one.reason for one in skipped]),
    ]
    title = html.escape(summary.path)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>'
        "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}td{padding:0 1em 0 0}"
        "rect{fill:#3a6ea5}text{font-size:11px}li{word-break:break-all}</style></head>\n"
        f"<body><h1>{title}</h1>\n" + "\n".join(filter(None, parts)) + "\n</body></html>\n"
    )


def _named(character: str) -> str:
    return f"{character} (U+{ord(character):04X})"


def _table(rows: Any) -> str:
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


def _list(title: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    rest = f"<li>... and {len(items) - _SHOWN} more</li>" if len(items) > _SHOWN else ""
    listed = "".join(f"<li>{html.escape(item)}</li>" for item in items[:_SHOWN])
    return f"<h2>{html.escape(title)} ({len(items)})</h2><ul>{listed}{rest}</ul>"


def _histogram(title: str, counts: Mapping[int, int], note: str) -> str:
    """A histogram of value -> count with equal bins, as inline SVG with a title for each bar."""
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    step = max(1, -(-(high - low + 1) // _BARS))
    bars = Counter({(value - low) // step: 0 for value in (low, high)})
    for value, number in counts.items():
        bars[(value - low) // step] += number
    number_of_bars, tallest = max(bars) + 1, max(bars.values())
    width = _WIDTH / number_of_bars
    shapes = []
    for bar in range(number_of_bars):
        height = _HEIGHT * bars[bar] / tallest
        told = f"{low + bar * step} to {low + (bar + 1) * step - 1}: {bars[bar]}"
        shapes.append(
            f'<rect x="{bar * width:.1f}" y="{_HEIGHT - height:.1f}" width="{max(width - 1, 1):.1f}" '
            f'height="{height:.1f}"><title>{told}</title></rect>'
        )
    below = _HEIGHT + 14
    labels = f'<text x="0" y="{below}">{low}</text><text x="{_WIDTH}" y="{below}" text-anchor="end">{high}</text>'
    return (
        f"<h2>{html.escape(title)}</h2><p>{html.escape(note)}; the tallest bar: {tallest}</p>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 20}" width="{_WIDTH}" role="img">{"".join(shapes)}{labels}</svg>'
    )
