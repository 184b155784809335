"""Counts and scores against tables written by hand and against a plain edit distance."""

import json
import math

import numpy as np
import pytest

from ms_ocr_handwritten.metrics import Counts, Scores, loose


def distance(a: str, b: str) -> int:
    """Levenshtein's distance, by the textbook's table."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def counted(*pairs: tuple[str, str]) -> Counts:
    counts = Counts()
    for text, label in pairs:
        counts.add(text, label)
    return counts


@pytest.mark.parametrize(
    "text, label, substitutions, deletions, insertions",
    [
        ("abc", "abc", 0, 0, 0),
        ("axc", "abc", 1, 0, 0),
        ("ac", "abc", 0, 1, 0),
        ("abcd", "abc", 0, 0, 1),
        ("", "abc", 0, 3, 0),
        ("abc", "", 0, 0, 3),
        ("", "", 0, 0, 0),
        ("中x", "中文字", 1, 1, 0),
        ("𠀀b", "𠀁b", 1, 0, 0),  # beyond 16 bits, still one character
    ],
)
def test_edits_of_a_line(text, label, substitutions, deletions, insertions):
    counts = counted((text, label))
    assert (counts.substitutions, counts.deletions, counts.insertions) == (substitutions, deletions, insertions)
    assert (counts.lines, counts.right, counts.characters) == (1, text == label, len(label))


def test_edits_add_up_to_the_distance():
    random = np.random.default_rng(0)
    for _ in range(300):
        text, label = ("".join(random.choice(list("abc"), random.integers(0, 9))) for _ in range(2))
        counts = counted((text, label))
        assert counts.substitutions + counts.deletions + counts.insertions == distance(label, text)
        assert counts.insertions - counts.deletions == len(text) - len(label)


def test_rates_by_hand():
    """20 characters of labels: 2 replaced, 1 left out, 3 too many; 1 line of 4 right."""
    counts = Counts(lines=4, right=1, characters=20, substitutions=2, deletions=1, insertions=3)
    assert counts.cer == pytest.approx(6 / 20) and counts.ar == pytest.approx(14 / 20)
    assert counts.cr == pytest.approx(17 / 20) and counts.line_accuracy == pytest.approx(1 / 4)


def test_rates_of_nothing_are_no_numbers():
    assert all(math.isnan(value) for value in (Counts().cer, Counts().ar, Counts().cr, Counts().line_accuracy))
    assert math.isnan(counted(("x", "")).cer) and counted(("x", "")).line_accuracy == 0


@pytest.mark.parametrize(
    "text, kept",
    [
        ("Ab c", "abc"),
        ("a,b。c", "abc"),
        ("１２", "12"),
        ("Straße", "strasse"),
        ("a+b=c", "abc"),
        ("ﬁn", "fin"),
        ("、。", ""),
    ],
)
def test_loose(text, kept):
    assert loose(text) == kept


def test_scores_by_hand():
    """Folded: the full-width comma counts as its half-width form. Raw: as it is. Loose: neither marks nor case."""
    scores = Scores.empty()
    scores.add("Ab,c", "ab，c", loss=2.0)
    scores.add("xy", "xyz", loss=4.0)
    scores.add("q", "q")
    summary = scores.summary()
    assert summary == {
        "lines": 3,
        "characters": 8,
        "cer": pytest.approx(2 / 8),
        "AR": pytest.approx(6 / 8),
        "CR": pytest.approx(6 / 8),
        "accuracy": pytest.approx(1 / 3),
        "avg_loss": pytest.approx(3.0),
        "cer_raw": pytest.approx(3 / 8),
        "accuracy_raw": pytest.approx(1 / 3),
        "cer_loose": pytest.approx(1 / 7),
        "accuracy_loose": pytest.approx(2 / 3),
    }
    assert all(type(value) in (int, float) for value in summary.values())


def test_merging_equals_counting_at_once():
    pairs = [("ab", "abc"), ("x", "x"), ("", "zz"), ("中，", "中,"), ("q", "")]
    whole, left, right = Scores.empty(), Scores.empty(), Scores.empty()
    for index, (text, label) in enumerate(pairs):
        for scores in (whole, right if index % 2 else left):
            scores.add(text, label, float(index))
    assert left + right == whole == right + left
    assert left != whole and (Scores.empty() + whole) == whole


def test_empty_set_gives_none_and_json():
    summary = Scores.empty().summary()
    assert (summary.pop("lines"), summary.pop("characters")) == (0, 0)
    assert set(summary.values()) == {None}
    json.dumps(summary, allow_nan=False)
