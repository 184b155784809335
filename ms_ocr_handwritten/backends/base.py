"""What every backend shares: lines to chunks, chunks to the best class of each column, columns back to lines.

A backend maps lines to column paths: for each line the best id of each column and its log-probability. Chunks that hold
only padding give the same columns whatever stands beside them, so they are computed once and reused.

What computes on a GPU is waited for later, so a backend gives something `Pending` at once.

Notation: N chunks, n chunks of a line, T = 63 n + 12 columns of a line, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from ..geometry import CHUNK_WIDTH, LINE_HEIGHT, kept_columns
from ..image import LineCanvas

CHUNKS_PER_BATCH = 24  # of one forward pass: enough to fill two cores, little enough to stay in the cache

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class ColumnPath(NamedTuple):
    """The best class of each of T columns."""

    ids: np.ndarray  # int64 (..., T)
    log_probs: np.ndarray  # float32 (..., T)


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
    asynchronous = False  # whether `begin` comes back at once, and this process may do something else meanwhile

    def begin(self, lines: Sequence[LineCanvas]) -> Pending[list[ColumnPath]]:
        """Begin to read; the result is the column path of each line, over all its chunks."""
        raise NotImplementedError

    def read(self, lines: Sequence[LineCanvas]) -> list[ColumnPath]:
        return self.begin(lines).result()


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
            ids, log_probs = self.chunk_columns(np.zeros((1, LINE_HEIGHT, CHUNK_WIDTH), np.float32))
            self._padding = ColumnPath(ids[0], log_probs[0])
        return self._padding

    def begin(self, lines: Sequence[LineCanvas]) -> "PendingLines":
        inked = np.concatenate([line.chunk_array() for line in lines])
        batches = max(1, round(len(inked) / self.chunks_per_batch))  # of like size: small ones are slower
        return PendingLines(self, lines, [self.begin_chunks(batch) for batch in np.array_split(inked, batches)])


@dataclass(frozen=True)
class PendingLines:
    """Lines whose inked chunks `batches` are being computed, one line's after the other's."""

    backend: ChunkBackend
    lines: Sequence[LineCanvas]
    batches: Sequence[Pending[ColumnPath]]

    def result(self) -> list[ColumnPath]:
        """The column path of each line, over all its chunks."""
        columns = ColumnPath(*map(np.concatenate, zip(*(batch.result() for batch in self.batches))))
        padding = self.backend.padding_columns() if any(line.inked < line.chunks for line in self.lines) else None
        paths, start = [], 0
        for line in self.lines:
            own = ColumnPath(*(array[start : start + line.inked] for array in columns))
            paths.append(joined(own, padding, line.chunks))
            start += line.inked
        return paths


def joined(columns: ColumnPath, padding: ColumnPath | None, chunks: int) -> ColumnPath:
    """Columns (n, 75) of a line's inked chunks, then those of padding (75,), to the columns (T,) that it keeps."""
    ids, log_probs = padding or (None, None)
    return ColumnPath(_join(columns.ids, ids, chunks), _join(columns.log_probs, log_probs, chunks))


def _join(columns: np.ndarray, padding: np.ndarray | None, chunks: int) -> np.ndarray:
    parts = [*columns] + [padding] * (chunks - len(columns))
    return np.concatenate([part[kept_columns(i, chunks)] for i, part in enumerate(parts)])
