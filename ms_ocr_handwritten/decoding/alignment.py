"""The most probable alignment of a text with the columns (Viterbi), from the candidates of each column."""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..ctc import BLANK, collapse
from .beam import QUIET
from .candidates import Candidates

UNLISTED = -20.0  # nats, of a class that is not among a column's candidates
NEVER = -1e30


def align(text: Sequence[int], columns: Candidates) -> list[tuple[int, int]]:
    """For each class of a text its columns, first (inclusive) and last (exclusive).

    The text must have an alignment, as every text found by a search has.
    """
    runs = collapse(*columns.best_path())
    if [run.id for run in runs] == list(text):  # then no alignment is more probable than the best path
        return [(run.start, run.end) for run in runs]
    if not text:
        return []
    # a quiet column holds no character, and every state may stay there
    kept = np.flatnonzero(columns.log_probs[:, 0] <= np.log(QUIET))
    labels = np.full(2 * len(text) + 1, BLANK)
    labels[1::2] = text
    moves = _moves(labels)
    behind = [0, *(np.diff(kept) > 1).astype(int).tolist()]  # 1 for columns preceded by quiet ones, which were left out
    scores = _scores(labels, columns.ids[kept], columns.log_probs[kept])
    best = np.full((len(kept), 2 + len(labels)), NEVER)  # of each column and state, after two unreachable states
    best[0, 2:4] = scores[0, :2]
    origins = sliding_window_view(best, len(labels), 1)[:, ::-1]  # (T, 3, states): the same state, one and two before
    options = np.empty((3, len(labels)))
    for column in range(1, len(kept)):
        np.add(origins[column - 1], moves[behind[column]], out=options)
        np.maximum.reduce(options, out=best[column, 2:])
        best[column, 2:] += scores[column]
    state = len(labels) - 1 if best[-1, -1] >= best[-1, -2] else len(labels) - 2
    spans: list[tuple[int, int]] = [(0, 0)] * len(text)
    for column in range(len(kept) - 1, -1, -1):
        if state % 2:
            at = int(kept[column])
            last = spans[state // 2][1]
            spans[state // 2] = (at, last or at + 1)
        if column:
            state -= int((origins[column - 1, :, state] + moves[behind[column], :, state]).argmax())
    return spans


def _scores(labels: np.ndarray, ids: np.ndarray, log_probs: np.ndarray) -> np.ndarray:
    """Log-probability of each state's class in each column, (T, states)."""
    known, states = np.unique(labels, return_inverse=True)
    slots = np.full(max(int(ids.max()), int(known[-1])) + 1, len(known))  # the last is for classes not in the text
    slots[known] = np.arange(len(known))
    table = np.full((len(ids), len(known) + 1), UNLISTED)
    table[np.arange(len(ids))[:, None], slots[ids[:, 1:]]] = np.maximum(log_probs[:, 1:], UNLISTED)
    table[:, slots[BLANK]] = np.maximum(log_probs[:, 0], UNLISTED)  # set last, since padding has the blank's id
    return table[:, states]


def _moves(labels: np.ndarray) -> np.ndarray:
    """Log-scores of staying in a state, or coming from one or two states before: 0 or NEVER.

    float (2, 3, states): from one column to the next, and across quiet columns, which end every character.
    """
    moves = np.zeros((2, 3, len(labels)))
    moves[:, 2] = NEVER
    moves[0, 2, 3::2] = np.where(labels[3::2] != labels[1:-2:2], 0.0, NEVER)
    moves[1, 0, 1::2] = NEVER
    moves[1, 2, 3::2] = 0.0
    return moves
