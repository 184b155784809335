"""The tables of a report: scores of subsets of the lines, confusions, and the characters missed most."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..geometry import CHUNK_STEP, CHUNK_WIDTH
from .lines import CHARACTERS, LOOSE_CHARACTERS, LOOSE_ERRORS, RIGHT, Reading, ReportedLine, counts_of, errors_of
from .statistics import FEWEST_UNITS, ratio_interval, summed_by

LENGTHS = (0, 1, 5, 10, 20, 40, 80)  # characters: upper bounds of the subsets, the last one holds longer lines
CHUNKS_TOLD = 6  # widths are distinguished up to this number of chunks
MOST_EXAMPLES = 6  # images per confusion


@dataclass(frozen=True)
class Figures:
    """Scores of some lines. Rates are nan if there is nothing to divide by, intervals if the sample is too small."""

    name: str
    lines: int
    characters: int
    errors: int
    cer: float
    cer_interval: tuple[float, float]
    right: float
    right_interval: tuple[float, float]
    cer_loose: float


def units_of(lines: Sequence[ReportedLine]) -> list[str]:
    """The resampling unit of each line for a bootstrap: its group if there are enough groups, else the line itself."""
    groups = [f"{line.set}\n{line.group}" for line in lines]
    return groups if len(set(groups)) >= FEWEST_UNITS else [str(index) for index in range(len(lines))]


def figures(name: str, readings: Sequence[Reading], units: Sequence[str]) -> Figures:
    """units: what is resampled, as returned by `units_of`."""
    counts = counts_of(readings)
    table = np.column_stack([errors_of(counts), counts, np.ones(len(counts), np.int64)])
    total, drawn = table.sum(0), summed_by(units, table)
    characters, right, lines = 1 + CHARACTERS, 1 + RIGHT, table.shape[1] - 1
    return Figures(
        name,
        int(total[lines]),
        int(total[characters]),
        int(total[0]),
        _ratio(total[0], total[characters]),
        _interval(drawn[:, 0], drawn[:, characters]),
        _ratio(total[right], total[lines]),
        _interval(drawn[:, right], drawn[:, lines]),
        _ratio(total[1 + LOOSE_ERRORS], total[1 + LOOSE_CHARACTERS]),
    )


def _interval(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float]:
    """The bootstrap interval; nan for a handful of units, where it would claim more than is known."""
    return ratio_interval(parts, wholes) if len(parts) >= FEWEST_UNITS else (math.nan, math.nan)


def parts(
    lines: Sequence[ReportedLine], name: Callable[[ReportedLine], str], order: Iterable[str] = ()
) -> list[Figures]:
    """Scores of the lines grouped by `name`: in the given order, or with the most errors first."""
    found: dict[str, list[ReportedLine]] = {one: [] for one in order}
    ordered = bool(found)
    for line in lines:
        found.setdefault(name(line), []).append(line)
    rows = [figures(one, [line.reading for line in some], units_of(some)) for one, some in found.items() if some]
    return rows if ordered else sorted(rows, key=lambda row: (-row.errors, row.name))


def by_length(lines: Sequence[ReportedLine]) -> list[Figures]:
    names = [
        *(str(high) if low + 1 == high else f"{low + 1}–{high}" for low, high in zip((-1, *LENGTHS), LENGTHS)),
        f"> {LENGTHS[-1]}",
    ]
    bounds = np.array(LENGTHS)
    return parts(lines, lambda line: names[int(np.searchsorted(bounds, len(line.reading.label)))], names)


def by_width(lines: Sequence[ReportedLine]) -> list[Figures]:
    """By the number of chunks with ink; lines of unknown width are left out."""
    bounds = [CHUNK_WIDTH + i * CHUNK_STEP for i in range(CHUNKS_TOLD)]
    names = [f"{low + 1}–{high}" for low, high in zip((0, *bounds), bounds)] + [f"> {bounds[-1]}"]
    known = [line for line in lines if line.width]
    return parts(known, lambda line: names[int(np.searchsorted(bounds, line.width))], names)


def by_confidence(lines: Sequence[ReportedLine]) -> list[Figures]:
    names = [f"{i / 10:.1f}–{(i + 1) / 10:.1f}" for i in range(10)]
    return parts(lines, lambda line: names[min(int(line.reading.score * 10), 9)], names)


@dataclass(frozen=True)
class Confusion:
    """`there` was read as `read`; '' for no character."""

    there: str
    read: str
    count: int
    share: float  # of all occurrences of `there`; nan for an insertion
    examples: tuple[tuple[int, int], ...]  # index of the line, index in its text


def confusions(lines: Sequence[ReportedLine]) -> list[Confusion]:
    """The most frequent first; examples are those with known positions."""
    counts: Counter[tuple[str, str]] = Counter()
    seen: Counter[str] = Counter()
    examples: defaultdict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for number, line in enumerate(lines):
        seen.update(line.reading.label)
        for at, there, read in line.reading.placed_pairs():
            if there == read:
                continue
            counts[there, read] += 1
            if len(examples[there, read]) < MOST_EXAMPLES and line.reading.chars:
                examples[there, read].append((number, at))
    return [
        Confusion(there, read, count, _ratio(count, seen[there]) if there else math.nan, tuple(examples[there, read]))
        for (there, read), count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


@dataclass(frozen=True)
class Missed:
    """A character of the labels that was not always read."""

    character: str
    count: int
    missed: int
    read_as: str  # most frequent misreading; '' for no character
    training: int | None  # its number of occurrences in the training data
    known: bool  # whether the vocabulary contains it


def missed(lines: Sequence[ReportedLine], known: Callable[[str], bool], training: Counter[str] | None) -> list[Missed]:
    """The most often missed first."""
    seen: Counter[str] = Counter()
    instead: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in lines:
        for there, read in line.reading.pairs:
            seen[there] += bool(there)
            if there and there != read:
                instead[there][read] += 1
    rows = [
        Missed(
            character,
            seen[character],
            wrong.total(),
            min(wrong, key=lambda read: (-wrong[read], read)),
            None if training is None else training[character],
            known(character),
        )
        for character, wrong in instead.items()
    ]
    return sorted(rows, key=lambda row: (-row.missed, row.character))


def character_confidences(readings: Iterable[Reading]) -> tuple[np.ndarray, np.ndarray]:
    """Confidence of every character read, float64 (n,), and whether it was right, bool (n,)."""
    scores, right = [], []
    for reading in readings:
        if len(reading.chars) != len(reading.text):
            continue
        for at, there, read in reading.placed_pairs():
            if read:
                scores.append(reading.chars[at].score)
                right.append(there == read)
    return np.array(scores, np.float64), np.array(right, bool)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan
