"""Greedy decoding and confidences against tables written by hand."""

import itertools
import math

import numpy as np
import pytest

from ms_ocr_handwritten.ctc import Run, best_path, collapse, collapse_lines, line_score, required_columns

CERTAIN = 0.0  # a log-probability


@pytest.mark.parametrize(
    "ids, runs",
    [
        ([], []),
        ([0], []),
        ([0, 0, 0], []),
        ([5], [(5, 0, 1)]),
        ([5, 5, 5], [(5, 0, 3)]),
        ([5, 0, 5], [(5, 0, 1), (5, 2, 3)]),
        ([5, 5, 0, 0, 5], [(5, 0, 2), (5, 4, 5)]),
        ([0, 3, 3, 4, 0], [(3, 1, 3), (4, 3, 4)]),
        ([3, 4, 3], [(3, 0, 1), (4, 1, 2), (3, 2, 3)]),
        ([1, 1, 2], [(1, 0, 2), (2, 2, 3)]),  # id 1 is no blank
    ],
)
def test_collapse(ids, runs):
    found = collapse(np.array(ids, np.int64), np.full(len(ids), CERTAIN, np.float32))
    assert [(run.id, run.start, run.end) for run in found] == runs


def runs_by_grouping(ids, log_probs):
    """Of one line, column by column, without numpy's help."""
    columns = zip(itertools.count(), ids.tolist(), np.exp(log_probs).tolist())
    groups = [(id, [*group]) for id, group in itertools.groupby(columns, lambda column: column[1])]
    return [Run(id, max(one[2] for one in group), group[0][0], group[-1][0] + 1) for id, group in groups if id != 0]


@pytest.mark.parametrize("seed", range(40))
def test_lines_collapse_at_once_as_each_by_itself(seed):
    """Empty ones, blank ones, ones that end with what the next begins with: to the last bit of the scores."""
    random = np.random.default_rng(seed)
    lengths = random.choice([0, 1, 2, 3, 75, 201], random.integers(0, 12))
    ids = [random.integers(0, random.integers(1, 4), length) for length in lengths]
    log_probs = [-random.exponential(3.0, length).astype(np.float32) for length in lengths]
    expected = [runs_by_grouping(*line) for line in zip(ids, log_probs)]
    assert collapse_lines(ids, log_probs) == expected
    assert [collapse(*line) for line in zip(ids, log_probs)] == expected


def test_score_of_a_character_is_the_highest_of_its_run():
    probabilities = np.array([0.9, 0.2, 0.7, 0.4, 0.99, 0.6], np.float32)
    found = collapse(np.array([0, 8, 8, 8, 0, 8]), np.log(probabilities))
    assert [run.id for run in found] == [8, 8]
    assert [run.score for run in found] == pytest.approx([0.7, 0.6])


def test_score_of_a_line_is_the_geometric_mean_of_its_characters():
    runs = [Run(4, 0.5, 0, 1), Run(5, 0.08, 2, 3)]
    assert line_score(runs, np.log(np.array([0.1, 0.2, 0.3]))) == pytest.approx(0.2)


def test_score_of_a_line_without_characters_is_that_of_its_columns():
    assert line_score([], np.log(np.array([0.9, 0.4]))) == pytest.approx(0.6)
    assert line_score([], np.array([])) == 0.0
    assert line_score([], np.log(np.array([0.9, 0.4])), inked=0.25) == pytest.approx(0.45)


def test_score_of_an_impossible_character_is_a_number():
    assert 0.0 <= line_score([Run(4, 0.0, 0, 1)], np.array([])) < 1e-30


def test_best_path_by_hand():
    logits = np.log(np.array([[0.1, 0.7, 0.2], [0.6, 0.3, 0.1]], np.float32)) + 5.0  # a constant changes nothing
    ids, log_probs = best_path(logits)
    assert ids.tolist() == [1, 0]
    assert np.exp(log_probs) == pytest.approx([0.7, 0.6])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_best_path_takes_batches_and_large_logits(dtype):
    logits = np.array([[[998.0, 1000.0], [-1000.0, -1000.0]]], dtype)
    ids, log_probs = best_path(logits)
    assert ids.shape == log_probs.shape == (1, 2) and log_probs.dtype == np.float32
    assert ids.tolist() == [[1, 0]]
    assert log_probs[0] == pytest.approx([-math.log(1 + math.exp(-2)), -math.log(2)], abs=1e-6)


@pytest.mark.parametrize(
    "ids, columns", [([], 0), ([4], 1), ([4, 5], 2), ([4, 4], 3), ([4, 4, 4], 5), ([4, 5, 4], 3), ([4, 4, 5, 5], 6)]
)
def test_required_columns(ids, columns):
    assert required_columns(ids) == columns


@pytest.mark.parametrize("ids", [[2], [2, 2], [2, 3, 2], [2, 2, 3], [3, 3, 3]])
def test_required_columns_are_the_least_that_collapse_to_the_label(ids):
    def alignable(columns: int) -> bool:
        paths = itertools.product((0, 2, 3), repeat=columns)
        return any([run.id for run in collapse(np.array(path), np.zeros(columns))] == ids for path in paths)

    assert [alignable(columns) for columns in range(1, 6)] == [n >= required_columns(ids) for n in range(1, 6)]
