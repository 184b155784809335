"""What every backend shares: lines to chunks, chunks to the best class of each column, columns back to lines.

A backend maps lines to column paths: for each line the best id of each column and its log-probability. Chunks that hold
only padding give the same columns whatever stands beside them, so they are computed once and reused.

Notation: N chunks, n chunks of a line, T = 63 n + 12 columns of a line, C classes.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..geometry import CHUNK_WIDTH, LINE_HEIGHT, kept_columns
from ..image import LineCanvas

CHUNKS_PER_BATCH = 24  # of one forward pass: enough to fill two cores, little enough to stay in the cache

ColumnPath = tuple[np.ndarray, np.ndarray]  # ids int64 (T,), log-probabilities float32 (T,)


class Backend:
    """What computes lines; `chunks_per_batch` inked chunks of them at a time are enough to be fast."""

    name: str
    precision: str
    chunks_per_batch = CHUNKS_PER_BATCH
    asynchronous = False  # whether `begin` comes back at once, and this process may do something else meanwhile

    def begin(self, lines: Sequence[LineCanvas]) -> Callable[[], list[ColumnPath]]:
        """Begin to read; what comes back gives the column path of each line, over all its chunks."""
        raise NotImplementedError

    def read(self, lines: Sequence[LineCanvas]) -> list[ColumnPath]:
        return self.begin(lines)()


class ChunkBackend(Backend):
    """A backend that computes chunks one by one, of any number of lines at a time."""

    _padding: ColumnPath | None = None  # the columns of a black chunk, once they were computed

    def begin_chunks(self, grey: np.ndarray) -> Callable[[], ColumnPath]:
        """Begin to read chunks float32 (N, 32, 300) in [0, 1]: ids int64 (N, 75), log-probabilities float32 (N, 75)."""
        raise NotImplementedError

    def chunk_columns(self, grey: np.ndarray) -> ColumnPath:
        return self.begin_chunks(grey)()

    def padding_columns(self) -> ColumnPath:
        """The columns of a black chunk, (75,) each."""
        if self._padding is None:
            ids, log_probs = self.chunk_columns(np.zeros((1, LINE_HEIGHT, CHUNK_WIDTH), np.float32))
            self._padding = ids[0], log_probs[0]
        return self._padding

    def begin(self, lines: Sequence[LineCanvas]) -> Callable[[], list[ColumnPath]]:
        chunks = [line.chunk_array() for line in lines]
        inked = np.concatenate(chunks)
        batches = max(1, round(len(inked) / self.chunks_per_batch))  # of like size: small ones are slower
        begun = [self.begin_chunks(batch) for batch in np.array_split(inked, batches)]

        def finish() -> list[ColumnPath]:
            ids, log_probs = (np.concatenate(part) for part in zip(*(path() for path in begun)))
            short = any(len(own) < line.chunks for line, own in zip(lines, chunks))
            padding = self.padding_columns() if short else (None, None)
            paths, start = [], 0
            for line, own in zip(lines, chunks):
                stop = start + len(own)
                paths.append(
                    tuple(
                        _join(columns[start:stop], empty, line.chunks)
                        for columns, empty in zip((ids, log_probs), padding)
                    )
                )
                start = stop
            return paths

        return finish


def _join(columns: np.ndarray, padding: np.ndarray | None, chunks: int) -> np.ndarray:
    """Columns of the inked chunks (N, 75), then of padding, to those kept of the line (T,)."""
    return np.concatenate(
        [(columns[i] if i < len(columns) else padding)[kept_columns(i, chunks)] for i in range(chunks)]
    )
