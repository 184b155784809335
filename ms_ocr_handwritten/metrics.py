"""Recognition metrics: CER, AR, CR, line accuracy; kept as counts, which can be summed over parts and ranks.

CER = (S + D + I) / N, AR = 1 - CER, CR = (N - S - D) / N, with the substitutions S, deletions D and insertions I of a
minimal edit from the labels to the texts, and N label characters (Yin et al., ICDAR 2013 competition on Chinese
handwriting recognition). Line accuracy is the share of lines read without any error.
"""

import math
import unicodedata
from dataclasses import dataclass, fields
from itertools import zip_longest

from rapidfuzz.distance import Levenshtein

from .vocab import fold_full_width


def loose(text: str) -> str:
    """`text` in NFKC, case folded, without spaces, punctuation (P*) and symbols (S*), to compare words only.

    >>> loose("Ｅn 2026, l'été!")
    'en2026lété'
    """
    kept = (c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c)[0] not in "PSZC")
    return "".join(kept).casefold()


def aligned(label: str, text: str) -> list[tuple[str, str]]:
    """A minimal edit as pairs (character of `label`, character of `text`), with '' where one has none.

    >>> aligned("hello", "hull")
    [('h', 'h'), ('e', 'u'), ('l', 'l'), ('l', 'l'), ('o', '')]
    """
    columns: list[tuple[str, str]] = []
    for block in Levenshtein.opcodes(label, text):
        there, read = label[block.src_start : block.src_end], text[block.dest_start : block.dest_end]
        columns += zip_longest(there, read, fillvalue="")
    return columns


@dataclass
class Counts:
    """Sums over lines; `a + b` adds them. Rates are nan if their denominator is 0.

    >>> counts = Counts()
    >>> counts.add("helo", "hello")
    >>> counts.add("25", "25")
    >>> counts.errors, counts.characters, round(counts.cer, 3), counts.line_accuracy
    (1, 7, 0.143, 0.5)
    """

    lines: int = 0
    right: int = 0
    characters: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def add(self, text: str, label: str) -> None:
        """Count one line with label `label` that was read as `text`."""
        self.lines += 1
        self.right += text == label
        self.characters += len(label)
        for edit in Levenshtein.editops(label, text):
            if edit.tag == "replace":
                self.substitutions += 1
            elif edit.tag == "delete":
                self.deletions += 1
            else:
                self.insertions += 1

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def cer(self) -> float:
        return _ratio(self.errors, self.characters)

    @property
    def ar(self) -> float:
        return 1 - self.cer

    @property
    def cr(self) -> float:
        return 1 - _ratio(self.substitutions + self.deletions, self.characters)

    @property
    def line_accuracy(self) -> float:
        return _ratio(self.right, self.lines)


@dataclass
class Scores:
    """The metrics of an evaluation: folded (full-width to half-width, as labels in training), raw, and loose.

    >>> scores = Scores.empty()
    >>> scores.add("１2", "12")
    >>> summary = scores.summary()
    >>> summary["cer"], summary["cer_raw"]
    (0.0, 0.5)
    """

    folded: Counts
    raw: Counts
    loose: Counts
    loss_sum: float = 0.0
    loss_lines: int = 0  # lines with a loss: their label is in the vocabulary and can be aligned

    @classmethod
    def empty(cls) -> "Scores":
        return cls(Counts(), Counts(), Counts())

    def add(self, text: str, label: str, loss: float | None = None) -> None:
        self.folded.add(fold_full_width(text), fold_full_width(label))
        self.raw.add(text, label)
        self.loose.add(loose(text), loose(label))
        if loss is not None:
            self.loss_sum += loss
            self.loss_lines += 1

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(
            self.folded + other.folded,
            self.raw + other.raw,
            self.loose + other.loose,
            self.loss_sum + other.loss_sum,
            self.loss_lines + other.loss_lines,
        )

    def summary(self) -> dict[str, float | int | None]:
        """Plain Python numbers, ready for JSON; None if there was nothing to measure.

        `accuracy`, `AR` and `avg_loss` are upstream's names (line accuracy, AR, mean loss per line).
        """
        folded, raw = self.folded, self.raw
        values = {
            "accuracy": folded.line_accuracy,
            "AR": folded.ar,
            "CR": folded.cr,
            "cer": folded.cer,
            "avg_loss": _ratio(self.loss_sum, self.loss_lines),
            "cer_raw": raw.cer,
            "accuracy_raw": raw.line_accuracy,
            "cer_loose": self.loose.cer,
            "accuracy_loose": self.loose.line_accuracy,
        }
        return {
            "lines": folded.lines,
            "characters": folded.characters,
            **{name: None if math.isnan(value) else float(value) for name, value in values.items()},
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
