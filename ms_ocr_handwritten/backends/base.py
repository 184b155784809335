"""What every backend shares: lines to chunks, chunks to the best class of each column, columns back to lines.

A backend maps lines to column paths: for each line the best id of each column and its log-probability. Chunks that hold
only padding give the same columns whatever stands beside them, so they are computed once and reused.

What computes on a GPU is waited for later, so a backend gives something `Pending` at once.

Notation: N chunks, n chunks of a line, T = 63 n + 12 columns of a line, C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from ..decoding.candidates import Candidates, Wanted
from ..errors import BackendError
from ..geometry import CHUNK_WIDTH, LINE_HEIGHT, kept_columns
from ..image import LineCanvas

BLACK_CHUNK = np.zeros((1, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
CHUNKS_PER_BATCH = 24  # of one forward pass: enough to fill two cores, little enough to stay in the cache

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class ColumnPath(NamedTuple):
    """The best class of each of T columns."""

    ids: np.ndarray  # int64 (..., T)
    log_probs: np.ndarray  # float32 (..., T)
    rivals: np.ndarray | None = None  # int64 (..., T), the ids that may be right instead; None where all are certain

    def each(self, change: Callable[..., np.ndarray], *others: "ColumnPath") -> "ColumnPath":
        """`change` of every array that is there, given together with those of `others`."""
        ids, log_probs, rivals = (None if one[0] is None else change(*one) for one in zip(self, *others))
        return ColumnPath(ids, log_probs, rivals)  # type: ignore[arg-type]  # the first two are there


Columns = TypeVar("Columns", ColumnPath, Candidates)


class Pending(Protocol[Found_co]):
    """What was begun; it may be computed meanwhile."""

    def result(self) -> Found_co:
        """What was found, once it is there. Asked for once."""


@dataclass(frozen=True)
class Computed(Generic[Found]):
    """What is there already."""

    found: Found

    def result(self) -> Found:
        return self.found


class Backend:
    """What computes lines; `chunks_per_batch` inked chunks of them at a time are enough to be fast."""

    name: str
    precision: str
    chunks_per_batch = CHUNKS_PER_BATCH

    @property
    def asynchronous(self) -> bool:
        """Whether `begin` comes back at once, and this process may do something else meanwhile."""
        return False

    def begin(self, lines: Sequence[LineCanvas]) -> Pending[list[ColumnPath]]:
        """Begin to read; the result is the column path of each line, over all its chunks."""
        raise NotImplementedError

    def read(self, lines: Sequence[LineCanvas]) -> list[ColumnPath]:
        return self.begin(lines).result()

    def begin_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> Pending[list[Candidates]]:
        """Begin to read for a search: the result is the candidates of the columns of each line, over all its chunks.

        In "bf16+fp32" all of it is computed in fp32, since rounding would move every probability.
        """
        raise NotImplementedError

    def reopened(self) -> "Backend":
        """The same for a process that was forked from the one that opened this: its threads are not there.

        Raises BackendError if that cannot be.
        """
        raise BackendError(
            f"{self.name} was opened before this process was forked, and does not work here; open the recogniser in "
            "each process, or start them with multiprocessing.get_context('spawn'), which can be sent a Recognizer"
        )


class ChunkBackend(Backend):
    """A backend that computes chunks one by one, of any number of lines at a time."""

    _padding: ColumnPath | None = None  # the columns of a black chunk, once they were computed

    def begin_chunks(self, grey: np.ndarray) -> Pending[ColumnPath]:
        """Begin to read chunks float32 (N, 32, 300) in [0, 1]; the result has the columns of each, (N, 75)."""
        raise NotImplementedError

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        return self.begin_chunks(grey).result()

    def padding_columns(self) -> ColumnPath:
        """The columns of a black chunk, (75,) each."""
        if self._padding is None:
            self._padding = self.chunk_columns(BLACK_CHUNK).each(lambda array: array[0])
        return self._padding

    def begin(self, lines: Sequence[LineCanvas]) -> "PendingLines":
        inked = np.concatenate([line.chunk_array() for line in lines])
        batches = max(1, round(len(inked) / self.chunks_per_batch))  # of like size: small ones are slower
        return PendingLines(self, lines, inked, [self.begin_chunks(batch) for batch in np.array_split(inked, batches)])

    def paths(self, lines: Sequence[LineCanvas], inked: np.ndarray, columns: ColumnPath) -> list[ColumnPath]:
        """The path of each line, over all its chunks.

        inked: the inked chunks of all lines, float32 (N, 32, 300), one line's after the other's
        columns: what was found there, (N, 75)
        """
        return joined_lines(lines, columns, self.padding_columns)

    def begin_chunk_candidates(self, grey: np.ndarray, wanted: Wanted) -> Pending[Candidates]:
        """Begin to read chunks float32 (N, 32, 300) in [0, 1]; the result has the candidates of each column."""
        raise NotImplementedError

    def padding_candidates(self, wanted: Wanted) -> Candidates:
        """The candidates of the columns of a black chunk, (75, 1 + k)."""
        return self.begin_chunk_candidates(BLACK_CHUNK, wanted).result().each(lambda array: array[0])

    def begin_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> Pending[list[Candidates]]:
        inked = np.concatenate([line.chunk_array() for line in lines])
        batches = np.array_split(inked, max(1, round(len(inked) / self.chunks_per_batch)))
        return PendingCandidates(self, lines, wanted, [self.begin_chunk_candidates(batch, wanted) for batch in batches])


@dataclass(frozen=True)
class PendingCandidates:
    """Candidates of lines whose inked chunks are being computed, in batches, one line's after the other's."""

    backend: ChunkBackend
    lines: Sequence[LineCanvas]
    wanted: Wanted
    batches: Sequence[Pending[Candidates]]

    def result(self) -> list[Candidates]:
        first, *others = (batch.result() for batch in self.batches)
        columns = first.each(lambda *arrays: np.concatenate(arrays), *others)
        return joined_lines(self.lines, columns, lambda: self.backend.padding_candidates(self.wanted))


@dataclass(frozen=True)
class PendingLines:
    """Lines whose inked chunks are being computed, in batches, one line's after the other's."""

    backend: ChunkBackend
    lines: Sequence[LineCanvas]
    inked: np.ndarray  # float32 (N, 32, 300)
    batches: Sequence[Pending[ColumnPath]]

    def result(self) -> list[ColumnPath]:
        """The column path of each line, over all its chunks."""
        first, *others = (batch.result() for batch in self.batches)
        columns = first.each(lambda *arrays: np.concatenate(arrays), *others)
        return self.backend.paths(self.lines, self.inked, columns)


def joined_lines(lines: Sequence[LineCanvas], columns: Columns, padding: Callable[[], Columns]) -> list[Columns]:
    """The columns of each line, over all its chunks, from those of all inked chunks, one line's after the other's.

    columns: of N chunks, (N, 75, ...)
    padding: computes those of a black chunk, (75, ...), which is asked for where a line has one
    """
    empty = padding() if any(line.inked < line.chunks for line in lines) else None
    starts = np.cumsum([0, *(line.inked for line in lines)])
    return [
        joined(columns.each(itemgetter(slice(start, start + line.inked))), empty, line)
        for start, line in zip(starts, lines)
    ]


def joined(columns: Columns, padding: Columns | None, line: LineCanvas) -> Columns:
    """Columns (n, 75, ...) of a line's inked chunks, then of padding (75, ...), to those that it keeps, (T, ...)."""

    def join(inked: np.ndarray, empty: np.ndarray | None = None) -> np.ndarray:
        parts = [*inked] + [empty] * (line.chunks - len(inked))
        return np.concatenate([part[kept_columns(i, line.chunks)] for i, part in enumerate(parts)])

    return columns.each(join, padding) if padding else columns.each(join)
