"""Greedy CTC decoding of columns to text, confidences and positions; the number of columns a label needs.

CTC: Graves et al., "Connectionist Temporal Classification", ICML 2006. Id 0 is the blank. Depends on numpy only.

Confidence, always in [0, 1]:
- of a character: its highest probability within its run of columns;
- of a line: the geometric mean of its characters' confidences, so that long and short lines are comparable;
- of a line without characters: the geometric mean of the probabilities of the best path's columns, times the share of
  columns without ink, so that an image full of ink that is read as nothing scores low.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLANK = 0
LEAST_SCORE = float(np.finfo(np.float32).tiny)  # of a character, so that its logarithm is finite


class Run(NamedTuple):
    """A character found by CTC: `id`, `score` in [0, 1], columns `start` (inclusive) to `end` (exclusive)."""

    id: int
    score: float
    start: int
    end: int


def best_path(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From logits (..., T, C), any float dtype, to the best id (..., T) int64 and its log-probability (..., T) float32.

    >>> best_path(np.zeros((2, 4)))
    (array([0, 0]), array([-1.3862944, -1.3862944], dtype=float32))
    """
    logits = np.asarray(logits, np.float32)
    top = logits.max(-1)
    normaliser = np.log(np.exp(logits - top[..., None]).sum(-1, dtype=np.float32))  # log-sum-exp minus top
    return logits.argmax(-1), -normaliser


def collapse(ids: np.ndarray, log_probs: np.ndarray) -> list[Run]:
    """Merge repeats and drop blanks: from ids (T,) and their log-probabilities (T,) to runs, left to right.

    >>> collapse(np.array([7, 7, 0, 7, 9]), np.log([0.5, 0.75, 1, 1, 0.5]))
    [Run(id=7, score=0.75, start=0, end=2), Run(id=7, score=1.0, start=3, end=4), Run(id=9, score=0.5, start=4, end=5)]
    """
    return collapse_lines([ids], [log_probs])[0]


def collapse_lines(ids: Sequence[np.ndarray], log_probs: Sequence[np.ndarray]) -> list[list[Run]]:
    """`collapse` for several lines of any lengths at once, each with ids (T,) and log-probabilities (T,).

    >>> collapse_lines([np.array([7, 7]), np.array([7])], [np.log([0.5, 0.75]), np.log([0.5])])
    [[Run(id=7, score=0.75, start=0, end=2)], [Run(id=7, score=0.5, start=0, end=1)]]
    """
    bounds = np.cumsum([0, *map(len, ids)])  # of the concatenated lines
    if bounds[-1] == 0:
        return [[] for _ in ids]
    side_by_side = np.concatenate(ids)
    begins = np.append(True, side_by_side[1:] != side_by_side[:-1])  # (columns,), whether a run begins here
    begins[bounds[:-1][bounds[:-1] < bounds[-1]]] = True
    starts = np.flatnonzero(begins)
    ends = np.append(starts[1:], bounds[-1])
    peaks = np.exp(np.maximum.reduceat(np.concatenate(log_probs), starts))
    kept = side_by_side[starts] != BLANK
    starts, ends, peaks = starts[kept], ends[kept], peaks[kept]
    lefts = bounds[np.searchsorted(bounds, starts, "right") - 1]  # first column of each run's line
    columns = side_by_side[starts], peaks, starts - lefts, ends - lefts
    runs = [*map(Run._make, zip(*(column.tolist() for column in columns)))]
    cuts = np.searchsorted(starts, bounds).tolist()
    return [runs[first:last] for first, last in zip(cuts, cuts[1:])]


def line_score(runs: Sequence[Run], log_probs: np.ndarray, inked: float = 0.0) -> float:
    """Confidence of a line in [0, 1]; without characters it follows from `log_probs` (T,) and `inked`.

    inked: the share of its columns that hold ink.

    >>> round(line_score([Run(7, 0.5, 0, 2), Run(9, 0.98, 3, 4)], np.zeros(4)), 6)
    0.7
    """
    if runs:
        return float(np.exp(np.log(np.maximum([run.score for run in runs], LEAST_SCORE)).mean()))
    return float(np.exp(np.mean(log_probs))) * (1.0 - inked) if len(log_probs) else 0.0


def required_columns(ids: Sequence[int]) -> int:
    """Minimum number of columns a label needs: one per character and one blank between equal neighbours.

    >>> required_columns([5, 5, 6])
    4
    """
    return len(ids) + sum(a == b for a, b in zip(ids, ids[1:]))
