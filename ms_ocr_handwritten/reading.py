"""Groups of lines, from canvases to what was read: the network, the decoder beside it, errors in their places."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from .backends.base import Backend, ColumnPath, Computed, Pending
from .decoding.candidates import Candidates
from .decoding.decoder import Decoder
from .errors import CheckpointError, ImageError
from .image import LineCanvas
from .image.loading import Loaded
from .line import Line, greedy_line, searched_line
from .vocab import Vocabulary


class LinesReader:
    """Reads groups of lines one way. A decoder works in a thread of its own, beside the next group's network."""

    def __init__(self, backend: Backend, vocabulary: Vocabulary, decoder: Decoder | None) -> None:
        self.backend, self.vocabulary, self.decoder = backend, vocabulary, decoder
        self.aside = 1 if backend.asynchronous else 0  # groups that are computed while others are given out
        self._thread: ThreadPoolExecutor | None = None

    def __enter__(self) -> "LinesReader":
        if self.decoder:
            self._thread, self.aside = ThreadPoolExecutor(1, "ms-ocr-decode"), 1
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def begin(self, canvases: list[LineCanvas]) -> Pending[list[Line]]:
        if not canvases:
            return Computed([])
        lines = self._searched(canvases, self.decoder) if self.decoder else self._greedy(canvases)
        return self._thread.submit(lines.result) if self._thread else lines

    def _greedy(self, canvases: list[LineCanvas]) -> "_Lines":
        pending = self.backend.begin(canvases)
        return _Lines(lambda: [self._greedy_line(*one) for one in zip(canvases, pending.result())])

    def _searched(self, canvases: list[LineCanvas], decoder: Decoder) -> "_Lines":
        pending = self.backend.begin_candidates(canvases, decoder.wanted)
        return _Lines(lambda: [self._searched_line(*one, decoder) for one in zip(canvases, pending.result())])

    def _greedy_line(self, canvas: LineCanvas, path: ColumnPath) -> Line:
        self._check(path.log_probs)
        return greedy_line(canvas, path.ids, path.log_probs, self.vocabulary)

    def _searched_line(self, canvas: LineCanvas, columns: Candidates, decoder: Decoder) -> Line:
        self._check(columns.log_probs[:, 0])
        return searched_line(canvas, columns, decoder, self.vocabulary)

    def _check(self, log_probs: np.ndarray) -> None:
        """Raises CheckpointError where they are no numbers."""
        if not np.isfinite(log_probs).all():
            raise CheckpointError(
                f"the network finds values that are no numbers ({self.backend.name}, {self.backend.precision}): its "
                "weights hold nan or inf, or are too large for the precision; take the weights of an earlier epoch, "
                "or 'fp32'"
            )


@dataclass(frozen=True)
class _Lines:
    """Lines of columns that may still be computed."""

    result: Callable[[], list[Line]]


def in_place(group: list[Loaded], pending: Pending[list[Line]]) -> Iterator[Line | ImageError]:
    """The lines of a group, and the errors of images in their places."""
    lines = iter(pending.result())
    for item in group:
        if isinstance(item, LineCanvas):
            yield next(lines)
        elif isinstance(item, ImageError):
            yield item
