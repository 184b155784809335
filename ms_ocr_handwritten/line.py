"""A line as it was read, and how it is made of what was found in its columns."""

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
    """One character: its confidence in [0, 1] and where it was found, x0 <= x1 in px of the source image.

    CTC marks a character by the columns where it is sure of it, often narrower than the ink: x0 and x1 span those.
    """

    character: str
    score: float
    x0: float
    x1: float


@dataclass(frozen=True)
class Line:
    """What was read: `score` in [0, 1] is the geometric mean of the characters' (see ctc.py for an empty line).

    alternatives: (text, log-probability), the text itself first, where n best texts, a language model or a constraint
        were asked for; see `decoding.decoder.Decoded` for what the log-probability is.
    """

    text: str
    score: float
    chars: tuple[Character, ...]
    alternatives: tuple[tuple[str, float], ...] = ()


def line_row(name: str | None, line: Line) -> dict[str, Any]:
    """The line as JSON has it: path, text, score, chars, and alternatives where there are any."""
    row = {"path": name, **asdict(line)}
    if not line.alternatives:
        del row["alternatives"]
    return row


def greedy_lines(
    canvases: Sequence[LineCanvas], ids: Sequence[np.ndarray], log_probs: Sequence[np.ndarray], vocabulary: Vocabulary
) -> list[Line]:
    """The lines of the best class of each column: of each line ids (T,) and their log-probabilities (T,)."""
    lines = []
    for canvas, found, probabilities in zip(canvases, collapse_lines(ids, log_probs), log_probs):
        runs = [run for run in found if vocabulary.character(run.id)]
        chars = _characters(runs, canvas, vocabulary)
        lines.append(Line(_text(chars), line_score(runs, probabilities, _inked(canvas, runs)), chars))
    return lines


def searched_line(canvas: LineCanvas, columns: Candidates, decoder: Decoder, vocabulary: Vocabulary) -> Line:
    """The line that `decoder` finds in the candidates of the columns."""
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
    """The share of the columns that hold ink, which is looked for where nothing was read alone; else 0."""
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
