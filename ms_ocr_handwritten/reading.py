"""From canvases to lines, batch by batch: the network, the decoder running in parallel, and errors kept in order."""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .backends.base import Backend, ColumnPath, Computed, Pending
from .decoding.candidates import Candidates
from .decoding.decoder import Decoder
from .errors import CheckpointError, ImageError
from .image import LineCanvas
from .image.loading import Loaded, Stop
from .image.views import view_canvas
from .line import Line, greedy_lines, searched_line
from .vocab import Vocabulary


class LinesReader:
    """Reads batches of lines. A decoder runs in its own thread while the network computes the next batch."""

    def __init__(
        self, backend: Backend, vocabulary: Vocabulary, decoder: Decoder | None, augment_below: float = 0.0
    ) -> None:
        """augment_below: the score below which other views of a line are read as well."""
        self.backend, self.vocabulary, self.decoder = backend, vocabulary, decoder
        self.augment_below = augment_below
        self.aside = 1 if backend.asynchronous else 0  # batches computed ahead of the one being yielded
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> "LinesReader":
        if self.decoder and not self.augment_below:  # augmentation runs the network again
            self._thread, self.aside = ThreadPoolExecutor(1, "ms-ocr-decode"), 1
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def read(self, loaded: Iterator[Loaded], batch_size: int) -> Iterator[Line | ImageError]:
        """Yield lines, or the errors of images in their place; a batch holds at most `batch_size` lines.

        Raises the error of a `Stop` after yielding the lines before it.
        """
        begun: deque[tuple[list[Loaded], Pending[list[Line]]]] = deque()
        with self:
            for group in _groups(loaded, batch_size, self.backend.width_per_batch):
                end = group.pop() if isinstance(group[-1], Stop) else None
                canvases = [item for item in group if isinstance(item, LineCanvas)]
                begun.append((group, self.begin(canvases)))
                while len(begun) > (0 if end else self.aside):
                    yield from _in_place(*begun.popleft())
                if isinstance(end, Stop):
                    raise end.error
            while begun:
                yield from _in_place(*begun.popleft())

    def begin(self, canvases: list[LineCanvas]) -> Pending[list[Line]]:
        if not canvases:
            return Computed([])
        lines = self._read(canvases)
        if self.augment_below:
            lines = _Lines(functools.partial(self._agreed, canvases, lines))
        return self._thread.submit(lines.result) if self._thread else lines

    def _read(self, canvases: list[LineCanvas]) -> "_Lines":
        return self._searched(canvases, self.decoder) if self.decoder else self._greedy(canvases)

    def _agreed(self, canvases: list[LineCanvas], first: "_Lines") -> list[Line]:
        """The lines of `first`, with doubtful ones replaced by the reading their views agree on most."""
        lines = first.result()
        doubtful = [n for n, line in enumerate(lines) if line.score < self.augment_below and canvases[n].views]
        readings = {n: [lines[n]] for n in doubtful}
        for views in zip(*(canvases[n].views for n in doubtful)):
            framed = [view_canvas(canvases[n], view) for n, view in zip(doubtful, views)]
            for n, line in zip(doubtful, self._read(framed).result()):
                readings[n].append(line)
        return [least_risk(readings[n]) if n in readings else line for n, line in enumerate(lines)]

    def _greedy(self, canvases: list[LineCanvas]) -> "_Lines":
        pending = self.backend.begin(canvases)
        return _Lines(lambda: self._greedy_lines(canvases, pending.result()))

    def _searched(self, canvases: list[LineCanvas], decoder: Decoder) -> "_Lines":
        pending = self.backend.begin_candidates(canvases, decoder.wanted)
        return _Lines(lambda: [self._searched_line(*one, decoder) for one in zip(canvases, pending.result())])

    def _greedy_lines(self, canvases: list[LineCanvas], paths: list[ColumnPath]) -> list[Line]:
        log_probs = [path.log_probs for path in paths]
        for one in log_probs:
            self._check(one)
        return greedy_lines(canvases, [path.ids for path in paths], log_probs, self.vocabulary)

    def _searched_line(self, canvas: LineCanvas, columns: Candidates, decoder: Decoder) -> Line:
        self._check(columns.log_probs[:, 0])
        return searched_line(canvas, columns, decoder, self.vocabulary)

    def _check(self, log_probs: np.ndarray) -> None:
        """Raise CheckpointError unless all are finite."""
        if not np.isfinite(log_probs).all():
            raise CheckpointError(
                f"the network's output is not finite ({self.backend.name}, {self.backend.precision}): its "
                "weights hold nan or inf, or are too large for the precision; use the weights of an earlier epoch, "
                "or 'fp32'"
            )


def least_risk(readings: Sequence[Line]) -> Line:
    """The reading of a line with the least expected edit distance to all; among equals the one with the highest score.

    Minimum Bayes risk (Kumar and Byrne, 2004), with the scores as probabilities.

    >>> readings = [Line("hcllo", 0.7, ()), Line("hello", 0.6, ()), Line("hella", 0.6, ())]
    >>> least_risk(readings).text
    'hello'
    """

    from rapidfuzz.distance import Levenshtein  # imported here, since most lines never need it

    def risk(one: Line) -> float:
        return sum(other.score * Levenshtein.distance(one.text, other.text) for other in readings)

    return min(readings, key=lambda one: (risk(one), -one.score))


@dataclass(frozen=True)
class _Lines:
    """Lines whose columns may still be being computed."""

    result: Callable[[], list[Line]]


def _groups(loaded: Iterator[Loaded], batch_size: int, full: int) -> Iterator[list[Loaded]]:
    """Batches of lines, up to `full` px wide in total; errors of unreadable images are kept in order."""
    group: list[Loaded] = []
    width = 0
    for item in loaded:
        inked = item.computed_width if isinstance(item, LineCanvas) else 0
        if width and width + inked > full:  # this bounds the batch, and so the memory
            yield group
            group, width = [], 0
        group.append(item)
        width += inked
        if len(group) == batch_size or width >= full or isinstance(item, Stop):
            yield group
            group, width = [], 0
    if group:
        yield group


def _in_place(group: list[Loaded], pending: Pending[list[Line]]) -> Iterator[Line | ImageError]:
    """The lines of a batch, with the errors of images in their place."""
    lines = iter(pending.result())
    for item in group:
        if isinstance(item, LineCanvas):
            yield next(lines)
        elif isinstance(item, ImageError):
            yield item
