"""What is reported of: labelled lines and what was read of them, by one reader or by two."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..line import Character, Line
from ..metrics import Counts, aligned, loose
from ..vocab import Vocabulary, fold_full_width

# Columns of `counts_of`: those of Counts, of folded and of loose texts.
RIGHT, CHARACTERS, SUBSTITUTIONS, DELETIONS, INSERTIONS, LOOSE_CHARACTERS, LOOSE_ERRORS = range(7)


@dataclass(frozen=True)
class Reading:
    """What one reader made of a line; `text` is folded to half-width, `chars` is empty where positions are unknown."""

    label: str  # folded as well
    text: str
    score: float
    chars: tuple[Character, ...] = ()

    @classmethod
    def of(cls, label: str, line: Line) -> "Reading":
        return cls(fold_full_width(label), fold_full_width(line.text), line.score, line.chars)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """(character of the label, character read), '' where one of the two has none."""
        return aligned(self.label, self.text)

    @cached_property
    def counts(self) -> Counts:
        counts = Counts()
        counts.add(self.text, self.label)
        return counts

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """A row of `counts_of`."""
        counts, loosely = self.counts, Counts()
        loosely.add(loose(self.text), loose(self.label))
        return (
            counts.right,
            counts.characters,
            counts.substitutions,
            counts.deletions,
            counts.insertions,
            loosely.characters,
            loosely.errors,
        )

    def placed_pairs(self) -> Iterator[tuple[int, str, str]]:
        """`pairs`, each with the place in `text` of the character read, or that before which one is missing."""
        at = 0
        for there, read in self.pairs:
            yield at, there, read
            at += bool(read)


@dataclass(frozen=True)
class ReportedLine:
    """A line that the first reader has read; `other` is what the second made of it, None where there is none."""

    name: str
    set: str
    group: str  # its writer, else its page, else its folder; '' where nothing is known
    width: int  # px at 32 px height, 0 where that is unknown
    reading: Reading
    other: Reading | None = None


Pictures = Callable[[set[int]], Iterable[tuple[int, "str | bytes"]]]


@dataclass(frozen=True)
class Evaluation:
    """All that a report tells.

    readers: names of the reader, and of the other one if there are two
    about: what is said of each reader, such as the model directory
    vocabulary: of the first reader
    unreadable: name and reason of lines that one of the readers could not read, which are in no figure
    training: how often training saw each character; None where that is not known
    pictures: asked for lines by their places in `lines`, gives places with what `load_image` takes
    """

    readers: Sequence[str]
    about: Sequence[str]
    lines: Sequence[ReportedLine]
    vocabulary: Vocabulary
    pictures: Pictures
    unreadable: Sequence[tuple[str, str]] = ()
    training: Counter[str] | None = field(default=None)


def counts_of(readings: Sequence[Reading]) -> np.ndarray:
    """What is counted of each line: int64 (n, 7)."""
    return np.array([reading.counted for reading in readings], np.int64).reshape(len(readings), 7)


def errors_of(counts: np.ndarray) -> np.ndarray:
    """S + D + I of each row of `counts_of`, int64 (n,)."""
    return counts[:, [SUBSTITUTIONS, DELETIONS, INSERTIONS]].sum(1)
