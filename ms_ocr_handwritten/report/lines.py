"""The data of a report: labelled lines and their readings by one or two readers."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..line import Character, Line
from ..metrics import Counts, aligned, loose
from ..vocab import Vocabulary, fold_full_width

# Columns of `counts_of`: those of Counts, for folded and for loose texts.
RIGHT, CHARACTERS, SUBSTITUTIONS, DELETIONS, INSERTIONS, LOOSE_CHARACTERS, LOOSE_ERRORS = range(7)


@dataclass(frozen=True)
class Reading:
    """One reader's result for a line; `text` is folded to half-width, `chars` is empty if positions are unknown."""

    label: str  # folded too
    text: str
    score: float
    chars: tuple[Character, ...] = ()

    @classmethod
    def of(cls, label: str, line: Line) -> "Reading":
        return cls(fold_full_width(label), fold_full_width(line.text), line.score, line.chars)

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """(character of the label, character read), '' for a missing counterpart."""
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
        """`pairs`, each with the index in `text` of the character read, or of the one before which it is missing."""
        at = 0
        for there, read in self.pairs:
            yield at, there, read
            at += bool(read)


@dataclass(frozen=True)
class ReportedLine:
    """A line as read by the first reader; `other` is the second reader's result, None if there is none."""

    name: str
    set: str
    group: str  # its writer, else its page, else its folder; '' if nothing is known
    width: int  # px at 32 px height, 0 if unknown
    reading: Reading
    other: Reading | None = None


Pictures = Callable[[set[int]], Iterable[tuple[int, "str | bytes"]]]


@dataclass(frozen=True)
class Evaluation:
    """The contents of a report.

    readers: names of the reader, and of the other one if there are two
    about: a description of each reader, such as the model directory
    vocabulary: of the first reader
    unreadable: name and reason of lines that one of the readers could not read; they are in no score
    training: the number of occurrences of each character in the training data; None if unknown
    pictures: called with indices into `lines`, yields these indices with inputs of `load_image`
    """

    readers: Sequence[str]
    about: Sequence[str]
    lines: Sequence[ReportedLine]
    vocabulary: Vocabulary
    pictures: Pictures
    unreadable: Sequence[tuple[str, str]] = ()
    training: Counter[str] | None = field(default=None)


def counts_of(readings: Sequence[Reading]) -> np.ndarray:
    """The counts of each line: int64 (n, 7)."""
    return np.array([reading.counted for reading in readings], np.int64).reshape(len(readings), 7)


def errors_of(counts: np.ndarray) -> np.ndarray:
    """S + D + I of each row of `counts_of`, int64 (n,)."""
    return counts[:, [SUBSTITUTIONS, DELETIONS, INSERTIONS]].sum(1)
