"""The base of all backends: from lines to pieces, from pieces to the best class of each column, and back to lines.

A backend maps lines to column paths: for each line the best id of each column and its log-probability. The network runs
on the pieces of lines (`geometry.Layout`): chunks of 300 px, or whole canvases. Chunks that hold only padding have the
same columns whatever their neighbours, so they are computed once and reused.

A GPU computes asynchronously, so a backend returns something `Pending` at once.

Notation: N pieces, W px of a piece, n pieces of a line, T columns (63 n + 12 for a chunked line), C classes.
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
WIDTH_PER_BATCH = 24 * CHUNK_WIDTH  # px per forward pass: enough to keep two cores busy, small enough for the cache

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)


class ColumnPath(NamedTuple):
    """The best class of each of T columns."""

    ids: np.ndarray  # int64 (..., T)
    log_probs: np.ndarray  # float32 (..., T)
    rivals: np.ndarray | None = None  # int64 (..., T), ids that may be right instead; None if all are certain

    def each(self, change: Callable[..., np.ndarray], *others: "ColumnPath") -> "ColumnPath":
        """Apply `change` to every array that is not None, together with those of `others`."""
        ids, log_probs, rivals = (None if one[0] is None else change(*one) for one in zip(self, *others))
        return ColumnPath(ids, log_probs, rivals)  # type: ignore[arg-type]  # the first two are never None


Columns = TypeVar("Columns", ColumnPath, Candidates)


class Pending(Protocol[Found_co]):
    """A result that may still be being computed."""

    def result(self) -> Found_co:
        """Wait for the result and return it; may be called once."""


@dataclass(frozen=True)
class Computed(Generic[Found]):
    """A result that is already available."""

    found: Found

    def result(self) -> Found:
        return self.found


class Backend:
    """Runs a network on lines of one `layout`; a batch of `width_per_batch` px in total is large enough to be fast."""

    name: str
    precision: str
    layout: Layout
    width_per_batch = WIDTH_PER_BATCH

    @property
    def asynchronous(self) -> bool:
        """Whether `begin` returns before the result is computed."""
        return False

    def begin(self, lines: Sequence[LineCanvas]) -> Pending[list[ColumnPath]]:
        """Start reading; the result is the column path of each line, over all its pieces."""
        raise NotImplementedError

    def read(self, lines: Sequence[LineCanvas]) -> list[ColumnPath]:
        return self.begin(lines).result()

    def begin_candidates(self, lines: Sequence[LineCanvas], wanted: Wanted) -> Pending[list[Candidates]]:
        """Start reading for a beam search; the result is the candidates of each line's columns, over all its pieces.

        With "bf16+fp32" it is computed wholly in fp32, since rounding would change every probability.
        """
        raise NotImplementedError

    def reopened(self) -> "Backend":
        """The same backend for a process forked from the one that opened it, whose threads a fork does not copy.

        Raises BackendError if that is not possible.
        """
        raise BackendError(
            f"{self.name} was opened before this process was forked, and does not work here; open the recogniser in "
            "each process, or start them with multiprocessing.get_context('spawn'), which can be sent a Recognizer"
        )


class PieceBackend(Backend):
    """A backend that computes pieces independently, for any number of lines at a time."""

    _padding: ColumnPath | None = None  # the columns of a black chunk, once computed

    def begin_pieces(self, grey: np.ndarray) -> Pending[ColumnPath]:
        """Start reading pieces float32 (N, 32, W) in [0, 1]; the result has the columns of each, (N, W / 4)."""
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
        """Pieces (N, 32, W) in batches of about equal size, since small ones are slower."""
        return np.array_split(inked, max(1, round(len(inked) * inked.shape[2] / self.width_per_batch)))

    def paths(self, lines: Sequence[LineCanvas], inked: np.ndarray, columns: ColumnPath) -> list[ColumnPath]:
        """The path of each line, over all its pieces.

        inked: the inked pieces of all lines, float32 (N, 32, W), line by line
        columns: their columns, (N, W / 4)
        """
        return joined_lines(lines, columns, self.padding_columns)

    def begin_piece_candidates(self, grey: np.ndarray, wanted: Wanted) -> Pending[Candidates]:
        """Start reading pieces float32 (N, 32, W) in [0, 1]; the result has the candidates of each column."""
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
    """Call `begin` for groups of lines with the same piece width, and join their results in order."""
    groups: dict[int, list[int]] = {}
    for index, line in enumerate(lines):
        groups.setdefault(line.piece_width, []).append(index)
    begun = [(indices, begin([lines[index] for index in indices])) for indices in groups.values()]
    return begun[0][1] if len(begun) == 1 else PendingGroups(begun)


@dataclass(frozen=True)
class PendingGroups(Generic[Found]):
    """Lines being computed in groups, with their indices in the input."""

    groups: Sequence[tuple[list[int], Pending[list[Found]]]]

    def result(self) -> list[Found]:
        found = {index: one for indices, group in self.groups for index, one in zip(indices, group.result())}
        return [found[index] for index in range(len(found))]


@dataclass(frozen=True)
class PendingCandidates:
    """Candidates of lines whose inked pieces are being computed in batches, line by line."""

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
    """Lines whose inked pieces are being computed in batches, line by line."""

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
    """The columns of each line, over all its pieces, from those of the inked pieces of all lines, line by line.

    columns: of N pieces, (N, W / 4, ...)
    padding: computes those of a black chunk, (75, ...); called only if a line has one
    """
    empty = padding() if any(line.inked < line.chunks for line in lines) else None
    starts = np.cumsum([0, *(line.inked for line in lines)])
    return [
        joined(columns.each(itemgetter(slice(start, start + line.inked))), empty, line)
        for start, line in zip(starts, lines)
    ]


def joined(columns: Columns, padding: Columns | None, line: LineCanvas) -> Columns:
    """Columns (n, W / 4, ...) of a line's inked pieces and (75, ...) of padding to the line's kept columns (T, ...)."""

    def join(inked: np.ndarray, empty: np.ndarray | None = None) -> np.ndarray:
        parts = [*inked] + [empty] * (line.chunks - len(inked))
        return np.concatenate([part[kept_columns(i, line.chunks)] for i, part in enumerate(parts)])

    return columns.each(join, padding) if padding else columns.each(join)
