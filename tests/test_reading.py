"""Groups of lines: which are computed together, how far ahead, and that each text comes in its line's place."""

from collections.abc import Sequence

import numpy as np
import pytest

from ms_ocr_handwritten.backends.base import Backend, ColumnPath, Computed
from ms_ocr_handwritten.errors import CheckpointError, ImageError
from ms_ocr_handwritten.geometry import CHUNKED
from ms_ocr_handwritten.image import LineCanvas, line_canvas
from ms_ocr_handwritten.image.loading import Stop
from ms_ocr_handwritten.reading import LinesReader
from ms_ocr_handwritten.vocab import Vocabulary

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = Vocabulary(tuple(LETTERS))


class Lettered(Backend):
    """Reads the grey of a line as a letter, and notes the lines that it is given together."""

    name, precision, layout = "lettered", "fp32", CHUNKED

    def __init__(self, full: int, ahead: bool = False, log_prob: float = -0.1) -> None:
        self.width_per_batch, self.ahead, self.log_prob = full, ahead, log_prob
        self.groups: list[str] = []

    @property
    def asynchronous(self) -> bool:
        return self.ahead

    def begin(self, lines: Sequence[LineCanvas]) -> Computed[list[ColumnPath]]:
        letters = [LETTERS[round(float(line.grey[0, 0]) * 255)] for line in lines]
        self.groups.append("".join(letters))
        probabilities = np.full(3, self.log_prob, np.float32)
        return Computed([ColumnPath(np.array([0, *VOCABULARY.encode(one), 0]), probabilities) for one in letters])


def lines(*chunks: int | None) -> list[LineCanvas | ImageError]:
    """Lines a, b, c ... of so many chunks each, and for None an image that cannot be read."""
    return [
        ImageError(f"no {letter}") if count is None else line_canvas(np.full((32, 252 * count, 3), number, np.uint8))
        for number, (letter, count) in enumerate(zip(LETTERS, chunks))
    ]


def read(backend: Lettered, loaded: list, batch_size: int = 99) -> list[str]:
    found = LinesReader(backend, VOCABULARY, None).read(iter(loaded), batch_size)
    return [str(one) if isinstance(one, ImageError) else one.text for one in found]


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize(
    "chunks, full, batch_size, groups",
    [
        ((1, 1, None, 2, 1, 3, 3, 1), 900, 99, ["ab", "de", "f", "g", "h"]),  # no wider than 900 px
        ((1, 2, 1, 1), 500, 99, ["a", "b", "c", "d"]),  # but for a line that is wider by itself
        ((1, 1, 1, 1, 1), 9000, 2, ["ab", "cd", "e"]),
        ((None, 1, None, 1, 1), 9000, 2, ["b", "d", "e"]),  # an image that cannot be read counts
        ((None, None, 1), 9000, 2, ["c"]),
        ((1, 1, 1), 900, 3, ["abc"]),
    ],
)
def test_lines_are_computed_together_up_to_a_width_and_a_number(chunks, full, batch_size, groups, ahead):
    backend = Lettered(full, ahead)
    expected = [f"no {letter}" if count is None else letter for letter, count in zip(LETTERS, chunks)]
    assert read(backend, lines(*chunks), batch_size) == expected
    assert backend.groups == groups


@pytest.mark.parametrize("ahead, begun", [(False, ["a", "ac", "ac", "acd"]), (True, ["ac", "acd", "acd", "acde"])])
def test_one_group_is_computed_ahead_where_the_backend_does_not_wait(ahead, begun):
    """What is begun when a line is asked for: no more, for each group holds memory."""
    backend, seen = Lettered(300, ahead), []
    for _ in LinesReader(backend, VOCABULARY, None).read(iter(lines(1, None, 1, 1, 1)), 9):
        seen.append("".join(backend.groups))
    assert seen[:4] == begun


@pytest.mark.parametrize("ahead", [False, True])
def test_lines_before_a_stop_come_first_and_none_after_it(ahead):
    backend = Lettered(600, ahead)
    loaded = [*lines(1, 1, 1, 1), Stop(ImageError("no e")), *lines(1)]
    found = LinesReader(backend, VOCABULARY, None).read(iter(loaded), 99)
    assert [next(found).text for _ in range(4)] == ["a", "b", "c", "d"]
    with pytest.raises(ImageError, match="no e"):
        next(found)
    assert next(found, None) is None and backend.groups == ["ab", "cd"]


def test_values_that_are_no_numbers_are_no_text():
    with pytest.raises(CheckpointError, match=r"not finite \(lettered, fp32\).*weights hold nan or inf"):
        read(Lettered(900, log_prob=float("nan")), lines(1))
