"""The report's figures against independent oracles: enumeration, scipy's binomial test, formulas by hand."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from ms_ocr_handwritten.line import Character, Line
from ms_ocr_handwritten.metrics import aligned
from ms_ocr_handwritten.report.breakdown import by_length, character_confidences, confusions, missed
from ms_ocr_handwritten.report.lines import Reading, ReportedLine
from ms_ocr_handwritten.report.statistics import (
    calibration_error,
    compare,
    percentile_interval,
    ratio_interval,
    reliability,
    resampled_sums,
    sign_test,
    summed_by,
    wilson,
)


def reading(label: str, text: str, scores=None) -> Reading:
    scores = scores or [0.5] * len(text)
    chars = tuple(Character(c, s, 10 * i, 10 * i + 4) for i, (c, s) in enumerate(zip(text, scores)))
    return Reading.of(label, Line(text, 0.5, chars))


def reported(label: str, text: str, **more) -> ReportedLine:
    return ReportedLine(
        **{"name": label, "set": "s", "group": "", "width": 100, "reading": reading(label, text), **more}
    )


def test_an_alignment_has_each_character_once():
    assert aligned("abcd", "axd") == [("a", "a"), ("b", "x"), ("c", ""), ("d", "d")]
    assert aligned("", "ab") == [("", "a"), ("", "b")]
    for label, text in itertools.product(["", "a", "ab", "aab", "abcba"], repeat=2):
        columns = aligned(label, text)
        assert ("".join(there for there, _ in columns), "".join(read for _, read in columns)) == (label, text)


def test_the_bootstrap_is_that_of_all_resamples():
    """27 resamples of three lines, enumerated: the mean and the quantiles of their ratios."""
    parts, wholes = np.array([0, 1, 4]), np.array([5, 2, 8])
    every = [sum(parts[list(drawn)]) / sum(wholes[list(drawn)]) for drawn in itertools.product(range(3), repeat=3)]
    sums = resampled_sums(np.stack([parts, wholes], 1), samples=40000)
    ratios = sums[:, 0] / sums[:, 1]
    values, shares = np.unique(np.round(every, 9), return_counts=True)
    found = np.array([np.isclose(ratios, value).mean() for value in values])
    assert found == pytest.approx(shares / 27, abs=0.01)
    exact = np.quantile(every, [0.025, 0.975], method="inverted_cdf")
    assert ratio_interval(parts, wholes) == pytest.approx(exact, abs=1e-9)


def test_blocks_do_not_change_what_is_drawn_from():
    counts = np.arange(20000).reshape(-1, 1)  # more than a block holds at a time
    sums = resampled_sums(counts, samples=300)
    mean, deviation = counts.mean(), counts.std() / math.sqrt(len(counts))
    assert abs(sums.mean() / len(counts) - mean) < 4 * deviation / math.sqrt(300)
    assert sums.std() / len(counts) == pytest.approx(deviation, rel=0.15)


def test_nothing_to_divide_by_has_no_interval():
    assert np.isnan(ratio_interval(np.zeros(4, int), np.zeros(4, int))).all()
    assert np.isnan(ratio_interval(np.zeros(0, int), np.zeros(0, int))).all()


def test_groups_are_summed_in_order():
    sums = summed_by(["b", "a", "b"], np.array([[1, 10], [2, 20], [4, 40]]))
    assert sums.tolist() == [[5, 50], [2, 20]]


def test_the_sign_test_is_the_binomial_one():
    stats = pytest.importorskip("scipy.stats")
    for wins, losses in [(0, 0), (1, 0), (3, 3), (5, 1), (0, 12), (17, 40), (900, 1000)]:
        expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
        assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)
    assert sign_test(0, 5) == pytest.approx(2 / 32)


def test_wilson_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    for right, count in [(0, 7), (3, 7), (90, 100), (7, 7)]:
        expected = stats.binomtest(right, count).proportion_ci(0.95, "wilson")
        assert wilson(right, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_a_difference_is_real_where_it_is_and_not_where_it_is_not():
    random = np.random.default_rng(1)
    characters = np.full(400, 20)
    worse, same = random.binomial(20, 0.20, 400), random.binomial(20, 0.10, 400)
    better = random.binomial(20, 0.10, 400)
    units = [str(i) for i in range(400)]
    real = compare(better, worse, characters, units)
    assert real.is_real and real.high < 0 and real.p < 1e-6
    assert real.value == pytest.approx((better.sum() - worse.sum()) / 8000)
    assert (real.better, real.worse) == (int((better < worse).sum()), int((better > worse).sum()))
    chance = compare(better, same, characters, units)
    assert not chance.is_real and chance.low < 0 < chance.high and chance.p > 0.01


def test_an_interval_of_writers_is_wider_than_one_of_lines():
    """All errors in one of ten hands: which lines are drawn says little, which hands much."""
    errors, characters = np.repeat([10] + [0] * 9, 30), np.full(300, 10)
    hands = [str(i // 30) for i in range(300)]
    by_hand = compare(errors, np.zeros(300, int), characters, hands)
    by_line = compare(errors, np.zeros(300, int), characters, [str(i) for i in range(300)])
    assert by_hand.high - by_hand.low > 3 * (by_line.high - by_line.low)


def test_percentiles():
    assert percentile_interval(np.arange(1001)) == pytest.approx((25, 975))


def test_reliability_counts_each_claim_in_its_bin():
    bins = reliability(np.array([0.0, 0.05, 0.95, 1.0, 0.92, 0.5]), np.array([False, True, True, True, False, True]))
    assert [(one.count, one.right) for one in bins] == [(2, 1), *[(0, 0)] * 4, (1, 1), *[(0, 0)] * 3, (3, 2)]
    assert bins[9].mean == pytest.approx((0.95 + 1.0 + 0.92) / 3)
    expected = 2 / 6 * abs(1 / 2 - 0.025) + 1 / 6 * abs(1 - 0.5) + 3 / 6 * abs(2 / 3 - bins[9].mean)
    assert calibration_error(bins) == pytest.approx(expected)
    assert math.isnan(calibration_error(reliability(np.zeros(0), np.zeros(0, bool))))


def test_confusions_say_what_how_often_and_where():
    lines = [reported("abc", "axc"), reported("bb", "xb"), reported("ab", "a"), reported("a", "ay")]
    rows = {(row.there, row.read): row for row in confusions(lines)}
    assert rows.keys() == {("b", "x"), ("b", ""), ("", "y")}
    assert (rows["b", "x"].count, rows["b", "x"].share, rows["b", "x"].examples) == (2, 2 / 4, ((0, 1), (1, 0)))
    assert (rows["b", ""].count, rows["b", ""].examples) == (1, ((2, 1),))
    assert rows["", "y"].examples == ((3, 1),) and math.isnan(rows["", "y"].share)
    assert next(iter(confusions(lines))).count == 2


def test_missed_characters_know_training_and_vocabulary():
    lines = [reported("abc", "axc"), reported("bb", "xb"), reported("ac", "a")]
    rows = missed(lines, lambda character: character != "c", Counter({"b": 7}))
    assert [(r.character, r.count, r.missed, r.read_as, r.training, r.known) for r in rows] == [
        ("b", 3, 2, "x", 7, True),
        ("c", 2, 1, "", 0, False),
    ]


def test_parts_by_length_keep_their_order():
    rows = by_length([reported("a" * n, "a" * n) for n in (81, 1, 5, 6, 10, 80, 2)])
    assert [(row.name, row.lines) for row in rows] == [("1", 1), ("2–5", 2), ("6–10", 2), ("41–80", 1), ("> 80", 1)]
    assert all(math.isnan(row.cer_interval[0]) for row in rows)  # of so few lines


def test_confidences_of_characters_go_with_the_alignment():
    scores, right = character_confidences([reading("abc", "xbcd", [0.1, 0.2, 0.3, 0.4]), Reading("ab", "ab", 0.5)])
    assert (scores.tolist(), right.tolist()) == ([0.1, 0.2, 0.3, 0.4], [False, True, True, False])
