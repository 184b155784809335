"""Page accuracy: lines found, errors over the lines found, and over the whole page including missed and extra lines."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.transcribed_page import TranscribedLine
from ..image.straighten import Points
from ..metrics import Scores

LEAST_IOU = 0.5  # of two polygons around the same line: intersection over union


@dataclass
class PageScores:
    """Sums over pages.

    lines: lines of the ground truth with a text; found: those matched by a polygon
    invented: detected lines without a counterpart in the ground truth
    matched: scores over the lines found; whole: over all lines, missed ones counted as read '', invented ones as ''
        in the ground truth; both ignore the order
    """

    pages: int = 0
    lines: int = 0
    found: int = 0
    invented: int = 0
    seconds: float = 0.0
    matched: Scores = field(default_factory=Scores.empty)
    whole: Scores = field(default_factory=Scores.empty)

    def add(self, read: Sequence[tuple[str, Points]], truth: Sequence[TranscribedLine], seconds: float) -> None:
        """Count one page, read as (text, polygon) lines in `seconds`."""
        self.pages += 1
        self.seconds += seconds
        pairs = matched_lines([polygon for _, polygon in read], [line.polygon for line in truth])
        found = {there: here for here, there in pairs}
        for index, line in enumerate(truth):
            if not line.text:  # a line that was not transcribed says nothing about its reading
                continue
            self.lines += 1
            text = read[found[index]][0] if index in found else ""
            self.whole.add(text, line.text)
            if index in found:
                self.found += 1
                self.matched.add(text, line.text)
        matched = set(found.values())
        for index, (text, _) in enumerate(read):
            if index not in matched:
                self.invented += 1
                self.whole.add(text, "")

    def row(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON; None if there was nothing to measure."""
        matched, whole = self.matched.summary(), self.whole.summary()
        return {
            "pages": self.pages,
            "lines": self.lines,
            "found": self.found / self.lines if self.lines else None,
            "invented": self.invented,
            "cer": matched["cer_raw"],
            "cer_loose": matched["cer_loose"],
            "page_cer": whole["cer_raw"],
            "page_cer_loose": whole["cer_loose"],
            "seconds_a_page": self.seconds / self.pages if self.pages else None,
        }


def matched_lines(found: Sequence[Points], truth: Sequence[Points]) -> list[tuple[int, int]]:
    """(index in found, index in truth) of polygons around the same line; each is used once, best matches first."""
    from shapely import STRtree
    from shapely.geometry import Polygon

    if not found or not truth:
        return []
    here, there = ([Polygon(np.asarray(one)).buffer(0) for one in polygons] for polygons in (found, truth))
    fits = []
    for index, near in STRtree(there).query(here).T.tolist():
        common = here[index].intersection(there[near]).area
        fits.append((common / max(here[index].area + there[near].area - common, 1e-9), index, near))
    pairs: list[tuple[int, int]] = []
    used_here, used_there = set(), set()
    for fit, index, near in sorted(fits, reverse=True):
        if fit >= LEAST_IOU and index not in used_here and near not in used_there:
            used_here.add(index)
            used_there.add(near)
            pairs.append((index, near))
    return pairs
