"""Statistical uncertainty: bootstrap intervals, a paired comparison, and the calibration of confidences.

Efron & Tibshirani, An Introduction to the Bootstrap (1993), percentile intervals; Wilson (1927) for proportions; the
exact sign test.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLES = 2000  # resamples of a bootstrap
LEVEL = 0.95
FEWEST_UNITS = 10  # minimum number of units for resampling: whole groups, as lines of one hand are alike, or else lines
_CELLS = 2**21  # numbers gathered at a time
_WILSON_Z = 1.959964  # a normal variable is within so many standard deviations with LEVEL


def summed_by(groups: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """Rows of `counts` (n, k) summed by group, int64 (g, k), groups in order of first occurrence."""
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    sums = np.zeros((len(number), counts.shape[1]), counts.dtype)
    np.add.at(sums, [number[group] for group in groups], counts)
    return sums


def resampled_sums(counts: np.ndarray, samples: int = SAMPLES, seed: int = 0) -> np.ndarray:
    """Column sums of `samples` resamples of the n rows of `counts` (n, k), drawn with replacement: (samples, k)."""
    random, (rows, columns) = np.random.default_rng(seed), counts.shape
    sums = np.zeros((samples, columns), counts.dtype)
    if not rows:
        return sums
    block = max(1, _CELLS // (rows * columns))
    for start in range(0, samples, block):
        drawn = random.integers(0, rows, (min(block, samples - start), rows))
        sums[start : start + block] = counts[drawn].sum(1)
    return sums


def ratio_interval(parts: np.ndarray, wholes: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of sum(parts) / sum(wholes), both (n,); nan if no resample has a nonzero denominator."""
    sums = resampled_sums(np.stack([parts, wholes], 1), seed=seed)
    sums = sums[sums[:, 1] > 0]
    if not len(sums):
        return math.nan, math.nan
    return percentile_interval(sums[:, 0] / sums[:, 1])


def percentile_interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """CER of the first reader minus that of the second, on the same lines."""

    value: float
    low: float
    high: float
    better: int  # lines in which the first makes fewer errors
    worse: int
    p: float  # of the exact sign test over these lines

    @property
    def is_real(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


def compare(first: np.ndarray, second: np.ndarray, characters: np.ndarray, groups: Sequence[str]) -> Difference:
    """Errors of two readers and numbers of characters on the same lines, each (n,); `groups` are resampled if there are
    two or more.
    """
    counts = summed_by(groups, np.stack([first - second, characters], 1))
    better, worse = int((first < second).sum()), int((first > second).sum())
    low, high = ratio_interval(counts[:, 0], counts[:, 1])
    value = counts[:, 0].sum() / counts[:, 1].sum() if counts[:, 1].sum() else math.nan
    return Difference(float(value), low, high, better, worse, sign_test(better, worse))


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of a split this uneven if both were equally likely: min(1, 2 P(X <= min(wins, losses)))."""
    n = wins + losses
    k = np.arange(min(wins, losses) + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k]) - n * math.log(2)
    return float(min(1.0, 2 * np.exp(logs).sum()))


@dataclass(frozen=True)
class Bin:
    """Readings with a confidence in [low, high), and how many of them were right."""

    low: float
    high: float
    count: int
    right: int
    mean: float  # of the confidences; nan for an empty bin

    @property
    def share(self) -> float:
        return self.right / self.count if self.count else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.right, self.count)


def reliability(confidences: np.ndarray, right: np.ndarray, bins: int = 10) -> list[Bin]:
    """Confidences in [0, 1], (n,), and whether each was right, bool (n,), in equal-width bins; 1.0 is in the last."""
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    sums = np.bincount(place, weights=confidences, minlength=bins)
    return [
        Bin(i / bins, (i + 1) / bins, int(counts[i]), int(hits[i]), sums[i] / counts[i] if counts[i] else math.nan)
        for i in range(bins)
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error: |accuracy - mean confidence| of the bins, weighted by their counts."""
    total = sum(one.count for one in bins)
    if not total:
        return math.nan
    return sum(one.count * abs(one.share - one.mean) for one in bins if one.count) / total


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson interval of a proportion."""
    if not count:
        return math.nan, math.nan
    z, share = _WILSON_Z, right / count
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)
