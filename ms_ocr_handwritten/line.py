"""The result for one line, and its construction from the decoded columns."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .ctc import LEAST_SCORE, Run, collapse_lines, line_score
from .decoding.candidates import Candidates
from .decoding.decoder import Decoder
from .geometry import COLUMN_WIDTH
from .image import LineCanvas
from .image.margins import inked_columns
from .vocab import Vocabulary


@dataclass(frozen=True)
class Character:
    """One character: its confidence in [0, 1] and its position, x0 <= x1 in px of the source image.

    x0 and x1 span the columns that CTC assigns to the character, which are often narrower than its ink.
    """

    character: str
    score: float
    x0: float
    x1: float


@dataclass(frozen=True)
class Line:
    """A line; `score` in [0, 1] is the geometric mean of the characters' scores (see ctc.py for an empty line).

    alternatives: (text, log-probability), the text itself first, if n best texts, a language model or a constraint
        was requested; see `decoding.decoder.Decoded` for the meaning of the log-probability.
    """

    text: str
    score: float
    chars: tuple[Character, ...]
    alternatives: tuple[tuple[str, float], ...] = ()


def line_row(name: str | None, line: Line) -> dict[str, Any]:
    """The line as a JSON object: path, text, score, chars, and alternatives if there are any."""
    row = {"path": name, **asdict(line)}
    if not line.alternatives:
        del row["alternatives"]
    return row


def greedy_lines(
    canvases: Sequence[LineCanvas], ids: Sequence[np.ndarray], log_probs: Sequence[np.ndarray], vocabulary: Vocabulary
) -> list[Line]:
    """Lines from the best path: for each line the best class of each column (T,) and its log-probability (T,)."""
    lines = []
    for canvas, found, probabilities in zip(canvases, collapse_lines(ids, log_probs), log_probs):
        runs = [run for run in found if vocabulary.character(run.id)]
        chars = _characters(runs, canvas, vocabulary)
        lines.append(Line(_text(chars), line_score(runs, probabilities, _inked(canvas, runs)), chars))
    return lines


def searched_line(canvas: LineCanvas, columns: Candidates, decoder: Decoder, vocabulary: Vocabulary) -> Line:
    """The line that `decoder` finds among the candidates of the columns."""
    decoded = decoder.decode(columns)
    best = decoded.hypotheses[0]
    runs = [
        Run(id, max(share, LEAST_SCORE), start, end)
        for id, share, (start, end) in zip(best.ids, decoded.shares, decoded.spans)
    ]
    chars = _characters(runs, canvas, vocabulary)
    alternatives = tuple((vocabulary.decode(one.ids), one.score) for one in decoded.hypotheses)
    score = line_score(runs, columns.log_probs[:, 0], _inked(canvas, runs))
    return Line(_text(chars), score, chars, alternatives)


def _inked(canvas: LineCanvas, runs: list[Run]) -> float:
    """The share of columns with ink if nothing was read, else 0, as it is only needed then."""
    if runs:
        return 0.0
    grey = (canvas.grey[:, : canvas.width] * 255).astype(np.uint8) if canvas.thumbnail is None else canvas.thumbnail
    return inked_columns(grey)


def _characters(runs: list[Run], canvas: LineCanvas, vocabulary: Vocabulary) -> tuple[Character, ...]:
    return tuple(
        Character(
            vocabulary.character(run.id),
            run.score,
            canvas.source_x(run.start * COLUMN_WIDTH),
            canvas.source_x(run.end * COLUMN_WIDTH),
        )
        for run in runs
    )


def _text(chars: tuple[Character, ...]) -> str:
    return "".join(char.character for char in chars)
