"""Where in the columns a text stands: its most probable alignment (Viterbi), from the candidates of each column."""

from collections.abc import Sequence

import numpy as np

from ..ctc import BLANK
from .beam import QUIET
from .candidates import Candidates

UNLISTED = -20.0  # nats, of a class that is no candidate of a column
NEVER = -1e30


def align(text: Sequence[int], columns: Candidates) -> list[tuple[int, int]]:
    """For each class of a text the columns where it stands, first (inclusive) and last (exclusive).

    The text must have an alignment, as what a search found has.
    """
    if not text:
        return []
    kept = np.flatnonzero(
        columns.log_probs[:, 0] <= np.log(QUIET)
    )  # in a quiet column nothing stands, and all may pause
    ids, log_probs = columns.ids[kept], np.maximum(columns.log_probs[kept], UNLISTED)
    labels = np.full(2 * len(text) + 1, BLANK)
    labels[1::2] = text
    listed = ids[:, :, None] == labels  # (T, 1 + k, states)
    scores = np.where(listed, log_probs[:, :, None], UNLISTED).max(1)  # (T, states)
    skips = np.zeros(len(labels), bool)  # states that may follow the one before the last: another character's
    skips[3::2] = labels[3::2] != labels[1:-2:2]
    behind = np.ones(len(kept), bool)  # columns before which quiet ones were left out, which end every character
    behind[1:] = np.diff(kept) > 1
    skips_behind = np.zeros(len(labels), bool)
    skips_behind[3::2] = True
    best = np.full(len(labels), NEVER)
    best[:2] = scores[0, :2]
    came = np.zeros((len(kept), len(labels)), np.int8)
    options = np.full((3, len(labels)), NEVER)
    for column in range(1, len(kept)):
        options[0] = best
        if behind[column]:
            options[0, 1::2] = NEVER
        options[1, 1:] = best[:-1]
        options[2, 2:] = np.where((skips_behind if behind[column] else skips)[2:], best[:-2], NEVER)
        came[column] = options.argmax(0)
        best = options.max(0) + scores[column]
    state = len(labels) - 1 if best[-1] >= best[-2] else len(labels) - 2
    spans: list[tuple[int, int]] = [(0, 0)] * len(text)
    for column in range(len(kept) - 1, -1, -1):
        if state % 2:
            at = int(kept[column])
            last = spans[state // 2][1]
            spans[state // 2] = (at, last or at + 1)
        state -= int(came[column, state])
    return spans
