"""What every backend shares: lines to pieces, pieces to the best class of each column, columns back to lines.

A backend maps lines to column paths: for each line the best id of each column and its log-probability. What it computes
are the pieces of lines (`geometry.Layout`): chunks of 300 px, or whole canvases. Chunks that hold only padding give the
same columns whatever stands beside them, so they are computed once and reused.

What computes on a GPU is waited for later, so a backend gives something `Pending` at once.

Notation: N pieces, W px of a piece, n pieces of a line, T columns (of a line 63 n + 12 where it is chunked), C classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from ..decoding.candidates import Candidates, Wanted
from ..errors import BackendError
from ..geometry import CHUNK_WIDTH, LINE_HEIGHT, Layout, kept_columns
from ..image import LineCanvas
from ..image.canvas import piece_arrays

BLACK_CHUNK = np.zeros((1, LINE_HEIGHT, CHUNK_WIDTH), np.float32)
WIDTH_PER_BATCH = 24 * CHUNK_WIDTH  # px of a forward pass: enough to fill two cores, few enough to stay in the cache

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
    """What computes lines of one `layout`; pieces of `width_per_batch` px at a time are enough to be fast."""

    name: str
    precision: str
    layout: Layout
    width_per_batch = WIDTH_PER_BATCH

    @property
    def asynchronous(self) -> bool:
        """Whether `begin` comes back at once, and this process may do something else meanwhile."""
        return False

    def begin(self, lines: Sequence[LineCanvas]) -> Pending[list[ColumnPath]]:
        """Begin to read; the result is the column path of each line, over all its pieces."""
        raise NotImplementedError

    def read(self, lines: Sequence[LineCanvas]) -> list[ColumnPath]:
        return self.begin(lines).result()

    def begin_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> Pending[list[Candidates]]:
        """Begin to read for a search: the result is the candidates of the columns of each line, over all its pieces.

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


class PieceBackend(Backend):
    """A backend that computes pieces one by one, of any number of lines at a time."""

    _padding: ColumnPath | None = None  # the columns of a black chunk, once they were computed

    def begin_pieces(self, grey: np.ndarray) -> Pending[ColumnPath]:
        """Begin to read pieces float32 (N, 32, W) in [0, 1]; the result has the columns of each, (N, W / 4)."""
        raise NotImplementedError

    def piece_columns(self, grey: np.ndarray) -> ColumnPath:
        return self.begin_pieces(grey).result()

    def padding_columns(self) -> ColumnPath:
        """The columns of a black chunk, (75,) each."""
        if self._padding is None:
            self._padding = self.piece_columns(BLACK_CHUNK).each(lambda array: array[0])
        return self._padding

    def begin(self, lines: Sequence[LineCanvas]) -> Pending[list[ColumnPath]]:
        return by_width(lines, self._begin_alike)

    def _begin_alike(self, lines: Sequence[LineCanvas]) -> "PendingLines":
        inked = piece_arrays(lines)
        return PendingLines(self, lines, inked, [self.begin_pieces(batch) for batch in self._batches(inked)])

    def _batches(self, inked: np.ndarray) -> list[np.ndarray]:
        """Pieces (N, 32, W) in batches of like size: small ones are slower."""
        return np.array_split(inked, max(1, round(len(inked) * inked.shape[2] / self.width_per_batch)))

    def paths(self, lines: Sequence[LineCanvas], inked: np.ndarray, columns: ColumnPath) -> list[ColumnPath]:
        """The path of each line, over all its pieces.

        inked: the inked pieces of all lines, float32 (N, 32, W), one line's after the other's
        columns: what was found there, (N, W / 4)
        """
        return joined_lines(lines, columns, self.padding_columns)

    def begin_piece_candidates(self, grey: np.ndarray, wanted: Wanted) -> Pending[Candidates]:
        """Begin to read pieces float32 (N, 32, W) in [0, 1]; the result has the candidates of each column."""
        raise NotImplementedError

    def padding_candidates(self, wanted: Wanted) -> Candidates:
        """The candidates of the columns of a black chunk, (75, 1 + k)."""
        return self.begin_piece_candidates(BLACK_CHUNK, wanted).result().each(lambda array: array[0])

    def begin_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> Pending[list[Candidates]]:
        return by_width(lines, lambda alike: self._begin_alike_candidates(alike, wanted))

    def _begin_alike_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> "PendingCandidates":
        batches = self._batches(piece_arrays(lines))
        return PendingCandidates(self, lines, wanted, [self.begin_piece_candidates(batch, wanted) for batch in batches])


def by_width(
    lines: Sequence[LineCanvas], begin: Callable[[Sequence[LineCanvas]], Pending[list[Found]]]
) -> Pending[list[Found]]:
    """What `begin` begins of all lines, which it takes in groups of one width of pieces."""
    groups: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(line.piece_width, []).append(index)
    begun = [(indices, begin([lines[index] for index in indices])) for indices in groups.values()]
    return begun[0][1] if len(begun) == 1 else PendingGroups(begun)


@dataclass(frozen=True)
class PendingGroups(Generic[Found]):
    """Lines that are being computed in groups, and their places among all."""

    groups: Sequence[tuple[list[int], Pending[list[Found]]]]

    def result(self) -> list[Found]:
        found = {index: one for indices, group in self.groups for index, one in zip(indices, group.result())}
        return [found[index] for index in range(len(found))]


@dataclass(frozen=True)
class PendingCandidates:
    """Candidates of lines whose inked pieces are being computed, in batches, one line's after the other's."""

    backend: PieceBackend
    lines: Sequence[LineCanvas]
    wanted: Wanted
    batches: Sequence[Pending[Candidates]]

    def result(self) -> list[Candidates]:
        first, *others = (batch.result() for batch in self.batches)
        columns = first.each(lambda *arrays: np.concatenate(arrays), *others)
        return joined_lines(self.lines, columns, lambda: self.backend.padding_candidates(self.wanted))


@dataclass(frozen=True)
class PendingLines:
    """Lines whose inked pieces are being computed, in batches, one line's after the other's."""

    backend: PieceBackend
    lines: Sequence[LineCanvas]
    inked: np.ndarray  # float32 (N, 32, W)
    batches: Sequence[Pending[ColumnPath]]

    def result(self) -> list[ColumnPath]:
        """The column path of each line, over all its pieces."""
        first, *others = (batch.result() for batch in self.batches)
        columns = first.each(lambda *arrays: np.concatenate(arrays), *others)
        return self.backend.paths(self.lines, self.inked, columns)


def joined_lines(lines: Sequence[LineCanvas], columns: Columns, padding: Callable[[], Columns]) -> list[Columns]:
    """The columns of each line, over all its pieces, from those of all inked pieces, one line's after the other's.

    columns: of N pieces, (N, W / 4, ...)
    padding: computes those of a black chunk, (75, ...), which is asked for where a line has one
    """
    empty = padding() if any(line.inked < line.chunks for line in lines) else None
    starts = np.cumsum([0, *(line.inked for line in lines)])
    return [
        joined(columns.each(itemgetter(slice(start, start + line.inked))), empty, line)
        for start, line in zip(starts, lines)
    ]


def joined(columns: Columns, padding: Columns | None, line: LineCanvas) -> Columns:
    """Columns (n, W / 4, ...) of a line's inked pieces, then of padding (75, ...), to those that it keeps, (T, ...)."""

    def join(inked: np.ndarray, empty: np.ndarray | None = None) -> np.ndarray:
        parts = [*inked] + [empty] * (line.chunks - len(inked))
        return np.concatenate([part[kept_columns(i, line.chunks)] for i, part in enumerate(parts)])

    return columns.each(join, padding) if padding else columns.each(join)
