"""What the beam leaves out, keeps and tells: quiet columns, unlikely classes, grammars, shares; a textbook's beam."""

import math

import numpy as np
import pytest
from test_beam import A, columns, every_text

from ms_ocr_handwritten.decoding.beam import beam_search
from ms_ocr_handwritten.decoding.candidates import Candidates, Wanted, candidates
from ms_ocr_handwritten.decoding.decoder import plain_search

C, D = 4, 5


def texts_of(found: Candidates, width: int = 100, **options) -> dict[tuple[int, ...], float]:
    return {one.ids: math.exp(one.score) for one in beam_search(*found, width, **options).hypotheses}


# ---------------------------------------------------------------------- quiet columns


def test_quiet_columns_multiply_by_their_blanks():
    """Alone and in runs, before, between and behind loud ones; the other classes have nothing there."""
    loud, quiet = [0.2, 0.5, 0.3], [0.9992, 0, 0]
    found = columns([quiet, quiet, loud, quiet, loud, loud, quiet, quiet, quiet])
    assert texts_of(found) == pytest.approx({text: p for text, p in every_text(found).items() if p}, rel=1e-9)
    assert texts_of(columns([quiet] * 3)) == pytest.approx({(): 0.9992**3}, rel=1e-9)


def test_a_blank_that_rounds_to_certainty_parts_equal_neighbours():
    """In float32 its log-probability is zero."""
    logits = np.full((5, 9), -25, np.float32)
    logits[[0, 2, 4], 0] = logits[[1, 3], A] = 0
    logits[[1, 3], 0] = -9
    found = candidates(logits, Wanted())
    assert found.log_probs[2, 0] == 0
    assert beam_search(*found).hypotheses[0].ids == (A, A)
    scores = [one.score for one in plain_search(found, 3).hypotheses]
    assert scores == sorted(scores, reverse=True)
