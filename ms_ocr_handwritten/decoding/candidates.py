"""The few classes of each column that a search considers, with their log-probabilities."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..ctc import BLANK
from .beam import QUIET

COUNT = 20  # classes per column besides the blank: on real lines they hold 99.9 % of the mass of 99 % of the columns


@dataclass(frozen=True)
class Wanted:
    """A request to a backend: `count` classes of each column besides the blank, among `classes` or, if None, all.

    If classes are given, the log-probabilities are normalised over them and the blank.
    """

    count: int = COUNT
    classes: tuple[int, ...] | None = None  # ascending, without the blank


class Candidates(NamedTuple):
    """Classes of columns, the blank first and the others by descending log-probability, padded with -inf.

    A column whose blank is more probable than QUIET may have only the blank.
    """

    ids: np.ndarray  # int32 (..., T, 1 + k)
    log_probs: np.ndarray  # float32 (..., T, 1 + k)

    def each(self, change: Callable[..., np.ndarray], *others: "Candidates") -> "Candidates":
        """Apply `change` to both arrays, each together with those of `others`."""
        return Candidates(*(change(*arrays) for arrays in zip(self, *others)))

    def best_path(self) -> tuple[np.ndarray, np.ndarray]:
        """The best class of each column of a line, (T,), and its log-probability, (T,)."""
        best = np.arange(len(self.ids)), self.log_probs.argmax(-1)
        return self.ids[best], self.log_probs[best]


def candidates(logits: np.ndarray, wanted: Wanted) -> Candidates:
    """The candidates of logits (T, C)."""
    logits = np.asarray(logits, np.float32)
    classes = None if wanted.classes is None else np.array([BLANK, *wanted.classes])
    if classes is not None:
        logits = logits[:, classes]
    top = logits.max(-1, keepdims=True)
    log_probs = logits - top
    log_probs -= np.log(np.exp(log_probs).sum(-1, keepdims=True))
    count = min(wanted.count, logits.shape[-1] - 1)
    ids = np.zeros((len(logits), 1 + count), np.int32)
    found = np.full(ids.shape, -np.inf, np.float32)
    found[:, 0] = log_probs[:, BLANK]
    busy = np.flatnonzero(found[:, 0] <= np.log(QUIET))
    others = log_probs[busy, 1:]
    best = np.argpartition(others, -count, -1)[:, -count:]
    best = np.take_along_axis(best, np.take_along_axis(-others, best, -1).argsort(-1, kind="stable"), -1)
    found[busy, 1:] = np.take_along_axis(others, best, -1)
    ids[busy, 1:] = best + 1 if classes is None else classes[best + 1]
    return Candidates(ids, found)
